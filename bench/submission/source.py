"""From a submission on disk to the plugin that the rest of the house evaluates."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.files import UserError
from bench.registry import ANONYMIZERS, Plugin
from bench.release import FittedAnonymizer
from bench.specs import Spec, parse_spec
from bench.submission.foreign import ForeignAnonymizer, ForeignAttacker
from bench.submission.isolation import Limits
from bench.submission.manifest import Manifest, identity
from bench.submission.prepared import SubmittedClips, SubmittedScores, SubmittedWeights
from bench.submission.session import Foreign, shared_session


@dataclass(frozen=True)
class SubmittedSpec(Spec):
    """A submission as a plugin with its parameters; what it is lies in its digest, and not where its files lie.

    Args:
        stated: What a record states: digest of the submission, level of isolation, parameters of the class.
        text: Its name in tables.
    """

    stated: tuple[tuple[str, Any], ...] = ()
    text: str = ""

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.stated)

    @property
    def strength(self) -> None:
        """None: a submission is one method at one strength."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Submission:
    """A submission whose manifest holds.

    Args:
        folder: Where its files lie.
        manifest: What it states.
    """

    folder: Path
    manifest: Manifest

    @property
    def makes(self) -> str:
        """ "anonymizer" or "attacker"."""
        return "attacker" if self.manifest.kind in ("attacker", "scores") else "anonymizer"

    def foreign(self, level: str, limits: Limits, clock: float = 0.0, **changed: Any) -> Foreign:
        """Its code, as it is to be run.

        Args:
            changed: Values of parameters other than the stated ones.
        """
        code = self.manifest.code
        parameters = tuple(sorted({**code.parameters, **changed}.items()))
        return Foreign(self.folder.resolve(), code.source, code.target, parameters, level, limits, clock)

    def spec(self, level: str = "", limits: Limits | None = None) -> SubmittedSpec:
        """The plugin. Code is loaded once, to learn what it declares.

        Args:
            level: Level of isolation; unused for submissions without code.

        Raises:
            ForeignError: if the code cannot be loaded.
            UserError: if it is not what the manifest says.
        """
        limits = limits or Limits()
        manifest, files = self.manifest, identity(self.folder)
        stated: dict[str, Any] = {"submission": files}
        if manifest.weights:
            fitted = FittedAnonymizer.load(self.folder / manifest.weights.folder)
            if fitted.spec.plugin.provider != "builtin":
                raise UserError(f"its weights are for {fitted.spec}, which is no method of this package; submit it as code")
            known = fitted.spec.value
            value: Any = SubmittedWeights(
                str((self.folder / manifest.weights.folder).resolve()), known.stochastic, known.causal, known.code_version
            )
            stated["method"] = str(fitted.spec)
        elif manifest.data:
            value = SubmittedClips(folder=str((self.folder / manifest.data.folder).resolve()))
        elif manifest.scores:
            value = SubmittedScores(file=str((self.folder / manifest.scores.file).resolve()), target=manifest.scores.target)
            stated["attacked"] = str(parse_spec(manifest.scores.anonymizer, ANONYMIZERS))
        else:
            value, declared = self._of_code(self.foreign(level, limits))
            stated |= {"isolation": level, **declared}
        plugin = Plugin(self.makes, manifest.name, f"submission {files}", manifest.provider)
        return SubmittedSpec(plugin, value, tuple(stated.items()), manifest.name)

    def _of_code(self, foreign: Foreign) -> tuple[Any, dict[str, Any]]:
        """The plugin for submitted code, and the values of its parameters."""
        found = shared_session(foreign).described
        wanted = {"code": "anonymizer", "attacker": "attacker"}[self.manifest.kind]
        if found.get("kind") != wanted:
            raise UserError(f"kind {self.manifest.kind!r} needs an {wanted}, {foreign.target} is an {found.get('kind')}")
        version = found.get("code_version")
        if type(version) is not int:
            raise UserError(f"code_version of {foreign.target} must be a whole number, got {version!r}")
        values = {
            str(name): value for name, value in found.get("values", {}).items() if isinstance(value, bool | int | float | str)
        }
        if wanted == "attacker":
            if found.get("control"):
                raise UserError("a submitted attacker is no control")
            return ForeignAttacker(foreign=foreign, target=str(found.get("target")), code_version=version), values
        if found.get("uses"):
            raise UserError(
                f"{foreign.target} uses labels ({', '.join(map(str, found['uses']))}) of the clips that it releases; submitted "
                "code gets none, or what it hides could not be told from what it was told"
            )
        flags = {name: bool(found.get(name)) for name in ("learns", "stochastic", "causal")}
        return ForeignAnonymizer(foreign, code_version=version, **flags), values
