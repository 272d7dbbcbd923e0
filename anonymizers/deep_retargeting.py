"""Deep motion retargeting: a clip's motion on the body of a dummy, by networks (Carr et al., ICCV 2025)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from anonymizers.kinematics import hold
from anonymizers.networks.retargeting import FRAMES, Decoder, Encoder
from anonymizers.retargeting_training import Retargeter, Sizes, body_windows
from bench.anonymizer import Anonymizer, ClipBatch, Examples, Fitted
from bench.presets import Preset
from bench.specs import param

_OVERLAP = 15  # frames in which one window fades into the next
_DONORS = 256  # most training clips that are kept as dummies
DUMMIES = ("constant", "constant-action", "random")


@dataclass(frozen=True)
class DMR(Anonymizer):
    """Puts a clip's motion on a dummy's body by codes of motion and of privacy, without adversaries (Carr et al., ICCV 2025).

    Each body is decoded from the code of its own motion and the privacy code of a training clip: one of a fixed person
    (`constant` with any action, `constant-action` with the clip's own, which must be known), or of a person drawn for each clip
    (`random`). Windows of 75 frames overlap by 15 and fade into each other; the path of a body's centre stays as it is.

    Mended from the published code: heads answer with logits, and encoders raise the entropy of what must not be told rather
    than an unbounded loss.
    """

    dummy: str = param("constant", "whose body", choices=DUMMIES, shown=True)

    learns: ClassVar[bool] = True
    code_version: ClassVar[int] = 2
    adversaries: ClassVar[bool] = False

    @property
    def stochastic(self) -> bool:
        return True  # which of the dummy's clips is drawn

    @property
    def uses(self) -> tuple[str, ...]:
        return ("action",) if self.dummy == "constant-action" else ()

    def budget(self, preset: Preset) -> Mapping[str, Any]:
        return {"training": asdict(preset.attack), "sizes": asdict(Sizes.of(preset, self.adversaries))}

    def fit(self, examples: Examples) -> Fitted:
        retargeter = Retargeter(examples, adversaries=self.adversaries)
        curves = retargeter.train()
        labels = examples.release_labels()
        everyone = torch.randperm(len(examples.clips), generator=torch.Generator().manual_seed(examples.seed))
        if self.dummy != "random":
            person = labels["subject"][int(everyone[0])]
            everyone = everyone[(labels["subject"].cpu() == person.cpu())[everyone]]
        donors = everyone[:_DONORS].to(examples.clips.device)
        state = {
            "privacy": retargeter.privacy_codes(donors),
            "action": labels["action"][donors],
            **{f"motion.{name}": value for name, value in retargeter.motion.state_dict().items()},
            **{f"decoder.{name}": value for name, value in retargeter.decoder.state_dict().items()},
        }
        return Fitted(state, {"seed": examples.seed, **curves})

    def transform(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        device = batch.clips.device
        codes = state["privacy"].to(device)  # (D, C, L)
        with torch.device("meta"):  # neither drawn nor copied: they take the tensors of the state themselves
            encoder, decoder = Encoder(*codes.shape[1:]), Decoder(codes.shape[1], batch.layout.num_joints)
        for network, prefix in ((encoder, "motion."), (decoder, "decoder.")):
            own = {k.removeprefix(prefix): v.to(device) for k, v in state.items() if k.startswith(prefix)}
            network.load_state_dict(own, assign=True)
            network.eval()
        centres = hold(batch.clips, batch.present)[:, :, :, batch.layout.centre : batch.layout.centre + 1]
        dummies = codes[self._dummies(batch, state).to(device)]  # (N, C, L)
        out = torch.zeros_like(batch.clips)
        for start, which, fade in _schedule(batch.lengths):
            windows, owners = body_windows(batch, which, start)
            made = decoder(encoder(windows), dummies[owners])  # (n * M, 75, V, 3)
            made = made.unflatten(0, (len(which), -1)).permute(0, 4, 2, 3, 1)  # (n, 3, 75, V, M)
            stop = min(start + FRAMES, out.shape[2])
            weight = fade[:, None, : stop - start, None, None].to(device)
            out[which, :, start:stop] += weight * made[:, :, : stop - start]
        return (out + centres) * batch.present

    def _dummies(self, batch: ClipBatch, state: Mapping[str, Tensor]) -> Tensor:
        """(N,) which donor stands in for each clip."""
        actions = state["action"].cpu()
        found = []
        for i, generator in enumerate(batch.generators()):
            fitting = torch.arange(len(actions))
            if self.uses:
                same = (actions == batch.labels["action"][i].cpu()).nonzero()[:, 0]
                fitting = same if len(same) else fitting
            found.append(fitting[torch.randint(len(fitting), (1,), generator=generator)])
        return torch.cat(found)


def _schedule(lengths: Tensor) -> list[tuple[int, Tensor, Tensor]]:
    """Windows that cover clips of these lengths: (first frame, which clips (n,), weight of each of their 75 frames (n, 75)).

    Windows start every 60 frames, as long as the one before does not reach the clip's end; weights of a frame add up to one.
    """
    stride, found, start = FRAMES - _OVERLAP, [], 0
    rise = (torch.arange(FRAMES) + 1) / (_OVERLAP + 1)
    while True:
        which = (lengths > (start + _OVERLAP if start else 0)).nonzero()[:, 0]
        if not len(which):
            return found
        into = rise.clamp_max(1.0) if start else torch.ones(FRAMES)
        follows = (lengths[which].cpu() > start + FRAMES)[:, None]  # another window comes
        out_of = (1 - (torch.arange(FRAMES) - stride + 1) / (_OVERLAP + 1)).clamp(0.0, 1.0)
        found.append((start, which, into * torch.where(follows, out_of, 1.0)))
        start += stride


@dataclass(frozen=True)
class PMR(DMR):
    """Retargeting whose motion code must not tell the person, nor its privacy code the action (PMR; Carr et al., ICCV 2025).

    DMR with adversaries: they read the codes, cooperative heads keep in them what belongs there, and a critic keeps movements
    plausible.
    """

    adversaries: ClassVar[bool] = True
