"""Training of deep motion retargeting (Carr et al., ICCV 2025): DMR, and PMR with adversaries."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from anonymizers.kinematics import hold
from anonymizers.minimax import entropy
from anonymizers.networks.retargeting import FRAMES, CodeHead, Critic, Decoder, Encoder
from bench import classifiers
from bench.anonymizer import ClipBatch, Examples
from bench.checkpoint import Checkpoint
from bench.data.clips import presence
from bench.execution import Pieces
from bench.files import UserError, digest
from bench.presets import Preset
from bench.protocols import ACTION, SUBJECT
from bench.skeleton import Layout
from bench.training import descend, make_optimiser

# Weights of the losses, as published for the training script.
_CROSS, _ENDS, _TRIPLET, _LATENT, _SMOOTH, _CRITIC, _ACTION, _PERSON = 0.1, 1.0, 1.0, 10.0, 3.0, 1.0, 10.0, 0.1
_REC = 2.0
# Epochs of the published stages: autoencoder on quadruplets and on clips, heads alone, all on clips, all on quadruplets.
_PUBLISHED_EPOCHS = {"warm-up paired": 5, "warm-up": 20, "heads": 70, "unpaired": 100, "paired": 100}
# Where the budget is given in steps: share of the stages; the autoencoder needs most.
_SHARES = {"warm-up paired": 0.1, "warm-up": 0.4, "heads": 0.1, "unpaired": 0.15, "paired": 0.25}
_QUADRUPLETS = 50_000
_CLIPS_PER_QUADRUPLET = 4


@dataclass(frozen=True)
class Sizes:
    """Size of the codes, and how the networks learn.

    Args:
        channels, length: C and L of a code.
        lr: Rate of AdamW.
        batch: Clips, or quadruplets, of a batch.
        passes: The preset's steps are taken so many times: an autoencoder learns slower than a classifier.
    """

    channels: int
    length: int
    lr: float
    batch: int
    passes: int = 4

    @classmethod
    def of(cls, preset: Preset, adversaries: bool) -> "Sizes":
        """As published: (128, 16) for PMR and (256, 32) for DMR, rate 1e-5, batches of 32; smaller and faster in other
        presets.
        """
        channels, length = (128, 16) if adversaries else (256, 32)
        if preset.attack.published:
            return cls(channels, length, 1e-5, 32)
        return cls(max(32, round(channels * preset.attack.width)), 16, 1e-3, preset.attack.batch)


def body_windows(batch: ClipBatch, which: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Windows of 75 frames from `start` on of each body, about its own centre joint; past a clip's end its last pose is held.

    Returns:
        (n * M, 75, V, 3), and for each the number of its clip in the batch.
    """
    clips = hold(batch.clips[which], batch.present[which])
    centre = batch.layout.centre
    clips = clips - clips[:, :, :, centre : centre + 1]
    frames = start + torch.arange(FRAMES, device=clips.device)
    at = torch.minimum(frames.expand(len(which), -1), (batch.lengths[which] - 1)[:, None])
    windows = clips.take_along_dim(at[:, None, :, None, None], dim=2)  # (n, 3, 75, V, M)
    return windows.permute(0, 4, 2, 3, 1).flatten(0, 1), which.repeat_interleave(clips.shape[4])


@dataclass
class _Stand:
    """Where a training stands, besides weights, momenta and generators.

    Args:
        stage, step: How many stages are over, and how many steps of the next one.
        done: Steps in all.
        curves: The mean of each loss over each stage that is over.
        most: Clips, and quadruplets, that go through the networks at a time.
    """

    stage: int = 0
    step: int = 0
    done: int = 0
    curves: dict[str, dict[str, float]] = field(default_factory=dict)
    most: tuple[int, int] = (0, 0)


class Retargeter:
    """The networks and their training.

    Args:
        examples: What may be learnt from.
        adversaries: Whether heads and critic take part (PMR).

    Raises:
        UserError: if the data has no labels of people, or no two people doing the same two actions.
    """

    def __init__(self, examples: Examples, *, adversaries: bool):
        for target in (ACTION, SUBJECT):
            if target not in examples.parts:
                raise UserError(
                    f"retargeting learns from labels of {target!r}; the data has them for {', '.join(examples.parts)}"
                )
        self.examples, self.clips, self.adversaries = examples, examples.clips, adversaries
        self.layout = examples.clips.layout
        self.sizes = Sizes.of(examples.preset, adversaries)
        self.generator = torch.Generator().manual_seed(examples.seed)
        self._most = _CLIPS_PER_QUADRUPLET * self.sizes.batch  # a published batch is of so many clips, or of fewer quadruplets
        self.pieces, self.quartets = Pieces(self._most), Pieces(self._most)
        labels = examples.release_labels()
        self.people = labels["subject"].unique(return_inverse=True)[1]
        self.actions = labels["action"].unique(return_inverse=True)[1]
        counts = {"action": int(self.actions.max()) + 1, "person": int(self.people.max()) + 1}
        device, joints, channels = self.clips.device, self.layout.num_joints, self.sizes.channels
        with classifiers.seeded(examples.seed, device):
            self.motion = Encoder(channels, self.sizes.length).to(device)
            self.privacy = Encoder(channels, self.sizes.length).to(device)
            self.decoder = Decoder(channels, joints).to(device)
            # (code that it reads, what it names): heads of the right kind cooperate, the others are adversaries
            self.heads = nn.ModuleDict(
                {f"{code} {what}": CodeHead(channels, counts[what]) for code in ("motion", "privacy") for what in counts}
            ).to(device)
            self.critic = Critic(joints).to(device)
        leaves, chains = _end_effectors(self.layout)
        self.ends = torch.tensor(leaves, device=device), chains.to(device)

    def train(self) -> dict[str, Any]:
        """Trains everything; returns the mean of each loss over each stage, and the reconstruction error."""
        coders = [*self.motion.parameters(), *self.privacy.parameters(), *self.decoder.parameters()]
        judges = [*self.heads.parameters(), *self.critic.parameters()]
        self.movers = {
            name: make_optimiser("adamw", [{"params": group}], self.sizes.lr)
            for name, group in (("coders", coders), ("judges", judges))
        }
        stages = [name for name in _SHARES if self.adversaries or name != "heads"]
        steps = {name: self._steps(name) for name in stages}
        quadruplets = self._quadruplets()
        total, stand = sum(steps.values()), _Stand()
        sums: dict[str, Tensor] = {}
        with classifiers.seeded(self.examples.seed, self.clips.device):  # dropout of the heads
            saved, unsaved = self._checkpoint(steps), ""
            if found := saved.restore():
                sums, stand = found[0], _Stand(**found[1])
                self.pieces.size, self.quartets.size = stand.most
            while stand.stage < len(stages):
                name = stages[stand.stage]
                batches = quadruplets if _is_paired(name) else self._singles()
                while stand.step < steps[name]:
                    for loss, value in self._step(name, next(batches)).items():
                        sums[loss] = sums.get(loss, 0.0) + value
                    stand.step, stand.done = stand.step + 1, stand.done + 1
                    if stand.done % 20 == 0:
                        self.examples.progress(stand.done, total, name + unsaved)
                        stand.most = (self.pieces.size, self.quartets.size)
                        unsaved = saved.save(sums, asdict(stand))
                stand.curves[name] = {loss: float(value) / steps[name] for loss, value in sums.items()}
                if not all(np.isfinite(value) for value in stand.curves[name].values()):
                    saved.remove()  # whoever mends the cause begins anew
                    raise FloatingPointError(f"a loss of retargeting became infinite or not a number in stage {name}")
                stand.stage, stand.step, sums = stand.stage + 1, 0, {}
        for network in (self.motion, self.privacy, self.decoder):
            network.eval()
        told = {"losses": stand.curves, "steps": steps, "group": self.grouped_by}
        most = {"clips": self.pieces.size, "quadruplets": self.quartets.size}
        return told | ({"micro_batch": most} if min(most.values()) < self._most else {})

    def _checkpoint(self, steps: dict[str, int]) -> Checkpoint:
        return Checkpoint(
            self.examples.checkpoint("retargeting"),
            digest(
                [
                    *(asdict(self.sizes), steps, self.examples.seed, self.clips.device.type, self.clips.sketch()),
                    *(self.people.tolist(), self.actions.tolist()),
                ]
            ),
            networks={name: getattr(self, name) for name in ("motion", "privacy", "decoder", "heads", "critic")},
            optimisers=self.movers,
            generators={"draws": self.generator},
        )

    def _steps(self, stage: str) -> int:
        config = self.examples.preset.attack
        if config.most_steps:
            return max(1, round(_SHARES[stage] * config.most_steps * self.sizes.passes))
        size = len(self.clips) if not _is_paired(stage) else min(_QUADRUPLETS, 4 * len(self.clips))
        epochs = _PUBLISHED_EPOCHS[stage] if config.published else round(_SHARES[stage] * config.epochs * self.sizes.passes)
        return max(1, epochs * (size // self.sizes.batch))

    def _singles(self) -> Iterator[Tensor]:
        while True:
            yield self._sent(torch.randint(len(self.clips), (self.sizes.batch,), generator=self.generator))

    def _quadruplets(self) -> Iterator[Tensor]:
        """(4 * batch,) clips x1 = (p1, a1), x2 = (p2, a2), y1 = (p2, a1), y2 = (p1, a2), each a block, of one set-up."""
        known = self.clips.nuisance
        groups = np.zeros(len(self.clips), dtype=int)
        if known is not None:
            groups = np.unique(known.nan_to_num(-1).cpu().numpy(), axis=0, return_inverse=True)[1].ravel()
        quadruplets, self.grouped_by = _find_quadruplets(self.people, self.actions, groups, self.generator), "set-up and camera"
        if not len(quadruplets):
            groups[:] = 0
            quadruplets, self.grouped_by = _find_quadruplets(self.people, self.actions, groups, self.generator), "nothing"
        if not len(quadruplets):
            raise UserError("retargeting learns from two people who do the same two actions; the data shows no such people")
        size = (
            max(1, self.sizes.batch // _CLIPS_PER_QUADRUPLET) if not self.examples.preset.attack.published else self.sizes.batch
        )

        def batches() -> Iterator[Tensor]:
            while True:
                drawn = torch.randint(len(quadruplets), (size,), generator=self.generator)
                yield self._sent(quadruplets[drawn].T.reshape(-1))

        return batches()

    def _sent(self, drawn: Tensor) -> Tensor:
        """What was drawn on the CPU, on its way to the device; nobody waits for it to arrive."""
        return drawn.to(self.clips.device, non_blocking=True)

    def _windows(self, indices: Tensor) -> Tensor:
        """(n, 75, V, 3) of the first body of each clip, from a random start."""
        lengths = self.clips.lengths[indices]
        spare = (lengths - FRAMES).clamp_min(0)
        start = (self._sent(torch.rand(len(indices), generator=self.generator)) * (spare + 1)).long()
        frames = torch.minimum(start[:, None] + torch.arange(FRAMES, device=spare.device), (lengths - 1)[:, None])
        return self._centred(self.clips.gather(indices, frames))

    def _centred(self, clips: Tensor) -> Tensor:
        first = clips[..., :1]
        first = hold(first, presence(first))
        centre = self.layout.centre
        return (first - first[:, :, :, centre : centre + 1])[..., 0].permute(0, 2, 3, 1)

    @torch.no_grad()
    def privacy_codes(self, indices: Tensor) -> Tensor:
        """(n, C, L) privacy codes of clips, from their first 75 frames."""
        frames = torch.arange(FRAMES, device=indices.device)
        at = torch.minimum(frames.expand(len(indices), -1), (self.clips.lengths[indices] - 1)[:, None])
        return self.privacy(self._centred(self.clips.gather(indices, at)))

    def _step(self, stage: str, indices: Tensor) -> dict[str, Tensor]:
        z = self._windows(indices)
        if stage == "heads":
            return self._judge(z, indices)
        paired = _is_paired(stage)

        def take(values: Tensor, piece: slice) -> Tensor:
            return values.unflatten(0, (_CLIPS_PER_QUADRUPLET, -1))[:, piece].flatten(0, 1) if paired else values[piece]

        def loss_of(piece: slice) -> tuple[Tensor, dict[str, Tensor]]:
            losses = self._coding(stage, take(z, piece), take(indices, piece))
            return sum(losses.values()), losses

        pieces, count = (self.quartets, len(z) // _CLIPS_PER_QUADRUPLET) if paired else (self.pieces, len(z))
        losses = self._move("coders", loss_of, count, pieces)
        if self.adversaries and not stage.startswith("warm-up"):
            losses |= self._judge(z, indices)
        return losses

    def _coding(self, stage: str, z: Tensor, indices: Tensor) -> dict[str, Tensor]:
        """What encoders and decoder minimise on windows (n, 75, V, 3) of the clips at `indices`."""
        motion, privacy = self.motion(z), self.privacy(z)
        made = self.decoder(motion, privacy)
        losses = {"reconstruction": _REC * FRAMES * functional.mse_loss(made, z), "smoothness": _SMOOTH * _smoothness(made, z)}
        if _is_paired(stage):
            losses |= self._paired(z, made, motion, privacy)
        if self.adversaries and not stage.startswith("warm-up"):
            losses |= self._embedding(motion, privacy, indices)
            plausible = self.critic(made)
            losses["critic"] = _CRITIC * functional.binary_cross_entropy_with_logits(plausible, torch.ones_like(plausible))
        return losses

    def _paired(self, z: Tensor, made: Tensor, motion: Tensor, privacy: Tensor) -> dict[str, Tensor]:
        """What quadruplets teach: the same action by another person, and the same person in another action."""
        x1, x2, y1, y2 = range(4)
        m, p, truth = (value.unflatten(0, (4, -1)) for value in (motion, privacy, z))
        cross = 0.0
        for action, person, result in ((x1, x2, y1), (x2, x1, y2), (y1, y2, x1), (y2, y1, x2)):
            cross = cross + FRAMES * functional.mse_loss(self.decoder(m[action], p[person]), truth[result]) / 4
        flat_m, flat_p = m.flatten(2), p.flatten(2)
        triplet = functional.triplet_margin_loss
        # y1 is a1 by p2: its motion is that of x1, its person that of x2; of y2 it is the other way round
        together = triplet(flat_m[y1], flat_m[x1], flat_m[x2]) + triplet(flat_m[y2], flat_m[x2], flat_m[x1])
        together = together + triplet(flat_p[y1], flat_p[x2], flat_p[x1]) + triplet(flat_p[y2], flat_p[x1], flat_p[x2])
        latent = [(flat_m, x1, y1), (flat_m, x2, y2), (flat_p, x1, y2), (flat_p, x2, y1)]
        return {
            "cross": _CROSS * cross,
            "end effectors": _ENDS * self._end_effector_error(made, z),
            "triplet": _TRIPLET * together,
            "latent": _LATENT * sum(functional.mse_loss(code[a], code[b]) for code, a, b in latent),
        }

    def _end_effector_error(self, made: Tensor, z: Tensor) -> Tensor:
        """Squared difference of the speeds of hands, feet and head, in lengths of their chains, summed over time."""
        joints, chains = self.ends
        speeds = [value[:, :, joints].diff(dim=1).norm(dim=3) / chains for value in (made, z)]
        return (speeds[0] - speeds[1]).square().sum(dim=1).mean()

    def _embedding(self, motion: Tensor, privacy: Tensor, indices: Tensor) -> dict[str, Tensor]:
        """Codes must tell what is theirs, and leave heads that name the rest in doubt."""
        action, person = self.actions[indices], self.people[indices]
        self.heads.requires_grad_(False)
        cross_entropy = functional.cross_entropy
        told = (
            cross_entropy(self.heads["motion action"](motion), action),
            cross_entropy(self.heads["privacy person"](privacy), person),
        )
        doubt = entropy(self.heads["privacy action"](privacy)), entropy(self.heads["motion person"](motion))
        self.heads.requires_grad_(True)
        return {"action in codes": _ACTION * (told[0] - doubt[0]), "person in codes": _PERSON * (told[1] - doubt[1])}

    def _judge(self, z: Tensor, indices: Tensor) -> dict[str, Tensor]:
        """A step of all heads and of the critic, on codes and windows as they are now."""

        def loss_of(piece: slice) -> tuple[Tensor, dict[str, Tensor]]:
            with torch.no_grad():
                codes = {"motion": self.motion(z[piece]), "privacy": self.privacy(z[piece])}
                made = self.decoder(codes["motion"], codes["privacy"])
            truth = {"action": self.actions[indices[piece]], "person": self.people[indices[piece]]}
            loss = sum(
                functional.cross_entropy(self.heads[f"{code} {what}"](codes[code]), truth[what])
                for code in codes
                for what in truth
            )
            real, false = self.critic(z[piece]), self.critic(made)
            doubted = functional.binary_cross_entropy_with_logits
            critic = doubted(real, torch.ones_like(real)) + doubted(false, torch.zeros_like(false))
            return loss + critic, {"heads": loss, "critic's own": critic}

        return self._move("judges", loss_of, len(z), self.pieces)

    def _move(self, who: str, loss_of: Any, count: int, pieces: Pieces) -> dict[str, Tensor]:
        return descend(self.movers[who], loss_of, count, pieces, self.movers[who].param_groups[0]["params"], 10.0)


def _is_paired(stage: str) -> bool:
    return "paired" in stage.split()


def _smoothness(made: Tensor, z: Tensor) -> Tensor:
    """Root of the summed absolute difference of squared summed velocities, over clips and frames (Carr et al., ICCV 2025)."""
    moved = [value.diff(dim=1).sum(dim=2).square() for value in (made, z)]
    return ((moved[0] - moved[1]).abs().sum() + 1e-12).sqrt() / (z.shape[0] * z.shape[1])


def _end_effectors(layout: Layout) -> tuple[list[int], Tensor]:
    """Joints without children, and the length of the chain from each to the root, both ends counted."""
    parents = {parent for child, parent in layout.bones}
    leaves = [joint for joint in range(layout.num_joints) if joint not in parents]
    depth = []
    for leaf in leaves:
        count, at = 1, leaf
        while at != layout.root:
            count, at = count + 1, layout.parents[at]
        depth.append(count)
    return leaves, torch.tensor(depth, dtype=torch.float32)


def _find_quadruplets(people: Tensor, actions: Tensor, groups: Sequence[int], generator: torch.Generator) -> Tensor:
    """(Q, 4) clips (p1, a1), (p2, a2), (p2, a1), (p1, a2) of one group each, drawn at random, at most 50,000."""
    people, actions = people.cpu().numpy(), actions.cpu().numpy()
    rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
    found = []
    for group in np.unique(groups):
        own = np.flatnonzero(groups == group)
        names, who = np.unique(people[own], return_inverse=True)
        kinds, what = np.unique(actions[own], return_inverse=True)
        if len(names) < 2 or len(kinds) < 2:
            continue
        table: dict[tuple[int, int], list[int]] = {}
        for clip, p, a in zip(own, who, what, strict=True):
            table.setdefault((p, a), []).append(clip)
        tries = min(_QUADRUPLETS, 8 * len(own))
        p1, a1 = rng.integers(len(names), size=tries), rng.integers(len(kinds), size=tries)
        p2 = (p1 + rng.integers(1, len(names), size=tries)) % len(names)
        a2 = (a1 + rng.integers(1, len(kinds), size=tries)) % len(kinds)
        for cells in zip(
            zip(p1, a1, strict=True), zip(p2, a2, strict=True), zip(p2, a1, strict=True), zip(p1, a2, strict=True), strict=True
        ):
            if all(cell in table for cell in cells):
                found.append([table[cell][rng.integers(len(table[cell]))] for cell in cells])
    rng.shuffle(found)
    return torch.tensor(found[:_QUADRUPLETS], dtype=torch.int64).reshape(-1, 4)
