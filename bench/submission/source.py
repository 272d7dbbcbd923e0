"""From a submission on disk to the plugin that the rest of the house evaluates."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bench.files import UserError, digest
from bench.protocols import ACTION
from bench.registry import ANONYMIZERS, Plugin
from bench.release import FittedAnonymizer
from bench.specs import Spec, parse_spec
from bench.submission.foreign import ForeignAnonymizer, ForeignAttacker
from bench.submission.hidden import GRID
from bench.submission.isolation import LEVELS, Limits, choose_level, refuse_visible
from bench.submission.manifest import Line, Manifest, Text, identity, printable, read_manifest
from bench.submission.networks import Networks, SubmittedNetworks
from bench.submission.prepared import SubmittedClips, SubmittedScores, SubmittedWeights
from bench.submission.session import Foreign, ForeignError, shared_session
from bench.submission.states import Entry, secret_of


class DeclaredParameter(BaseModel):
    """A parameter of a class, as far as another value of it is to be found."""

    model_config = ConfigDict(strict=True)

    name: Text
    minimum: float | None = None
    maximum: float | None = None
    choices: list[bool | int | float | Line] = []


class Declared(BaseModel):
    """What a worker says of the class that it loaded; nothing of it is taken as it comes."""

    model_config = ConfigDict(strict=True)

    kind: Literal["anonymizer", "attacker"]
    code_version: Annotated[int, Field(ge=0, lt=2**31)]
    stochastic: bool = False
    learns: bool = False
    causal: bool = False
    uses: list[Text] = []
    target: Text = "subject"
    control: bool = False
    values: dict[Text, bool | int | float | Line | None] = {}
    parameters: list[DeclaredParameter] = []


@dataclass(frozen=True)
class SubmittedSpec(Spec):
    """A submission as a plugin with its parameters; what it is lies in its digest, and not where its files lie.

    Args:
        stated: What a record states: digest and kind of the submission, level of isolation, and apart from these, since strangers
            choose their names, the parameters of the class.
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

    def foreign(
        self, level: str, limits: Limits, clock: float = 0.0, changed: Mapping[str, Any] = MappingProxyType({})
    ) -> Foreign:
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
        stated: dict[str, Any] = {"submission": files, "kind": manifest.kind}
        if self.makes == "anonymizer":
            stated["grid"] = GRID
        if manifest.weights and self.makes == "attacker":
            place = (self.folder / manifest.weights.folder).resolve()
            networks = Networks.load(place)
            known = networks.spec.value
            value: Any = SubmittedNetworks(folder=str(place), target=known.target, code_version=known.code_version)
            stated |= {"method": str(networks.spec), "backbone": networks.spec.parameters["backbone"]}
        elif manifest.weights:
            fitted = FittedAnonymizer.load(self.folder / manifest.weights.folder)
            if fitted.spec.plugin.provider != "builtin":
                raise UserError(f"its weights are for {fitted.spec}, which is no method of this package; submit it as code")
            known = fitted.spec.value
            if not known.learns:
                raise UserError(f"{fitted.spec} learns nothing, so there are no weights to submit; anybody can run it as it is")
            if known.uses:
                raise UserError(
                    f"{fitted.spec} uses labels ({', '.join(known.uses)}) of the clips that it releases; none are given"
                )
            value = SubmittedWeights(
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
            stated |= {"isolation": level, "parameters": declared}
        if self.makes == "attacker" and value.target == ACTION:
            raise UserError("its target is the action, which a release is to keep; an attacker reads what is to be hidden")
        plugin = Plugin(self.makes, manifest.name, f"submission {files}", manifest.provider)
        return SubmittedSpec(plugin, value, tuple(stated.items()), manifest.name)

    def _of_code(self, foreign: Foreign) -> tuple[Any, dict[str, Any]]:
        """The plugin for submitted code, and the values of its parameters."""
        found = declared(foreign)
        wanted = {"code": "anonymizer", "attacker": "attacker"}[self.manifest.kind]
        if found.kind != wanted:
            raise UserError(f"kind {self.manifest.kind!r} needs an {wanted}, {foreign.target} is an {found.kind}")
        values = {name: value for name, value in found.values.items() if value is not None}
        if found.kind == "attacker":
            if found.control:
                raise UserError("a submitted attacker is no control")
            return ForeignAttacker(foreign=foreign, target=found.target, code_version=found.code_version), values
        if found.uses:
            raise UserError(
                f"{foreign.target} uses labels ({', '.join(found.uses)}) of the clips that it releases; submitted code gets "
                "none, or what it hides could not be told from what it was told"
            )
        flags = {"learns": found.learns, "stochastic": found.stochastic, "causal": found.causal}
        return ForeignAnonymizer(foreign=foreign, code_version=found.code_version, **flags), values


def received(entry: Entry, level: str, results: Path, *, trust: bool) -> SubmittedSpec:
    """What was received before, as a plugin at a level of isolation; "" for what has no code.

    Raises:
        IsolationError: if this machine does not have the level, or it would keep nothing apart here.
        ForeignError: if the code cannot be loaded.
        UserError: if it is not what its manifest says.
    """
    if level in LEVELS:
        choose_level(level, trust=trust)
        refuse_visible(level, results)
    return with_secret(Submission(entry.files, read_manifest(entry.files)).spec(level), results)


def with_secret(spec: SubmittedSpec, results: Path) -> SubmittedSpec:
    """Code, drawing with the secret of a results folder: how seeds are made is no secret, so without one it could tell by them
    whose release it makes, or take noise out of one. Records state its digest.
    """
    if not isinstance(spec.value, ForeignAnonymizer | ForeignAttacker):
        return spec
    secret = secret_of(results)
    return replace(spec, value=replace(spec.value, secret=secret), stated=(*spec.stated, ("secret", digest(secret))))


def declared(foreign: Foreign) -> Declared:
    """What submitted code declares.

    Raises:
        ForeignError: if it cannot be loaded, or declares other things than a plugin does.
    """
    try:
        return Declared.model_validate(shared_session(foreign).described)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ForeignError("answer", f"{foreign.target} declares {printable(where)[:100]} wrongly: {first['msg']}") from error
