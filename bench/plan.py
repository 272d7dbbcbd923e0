"""What a run is to evaluate: everything that a user may have got wrong is found here, before anything is computed."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.data.prepare import open_or_prepare
from bench.data.store import ClipStore
from bench.files import UserError
from bench.jobs import Job
from bench.presets import Preset
from bench.protocols import ACTION, LINKAGE, SUBJECT, Protocol, ProtocolError, fold_of, instantiate
from bench.registry import ANONYMIZERS, ATTACKERS, DATASETS
from bench.specs import Spec, SpecError, parse_spec, parse_specs
from bench.summary import CONTROLS, NUISANCE, NUISANCE_LINKAGE, SHUFFLED
from bench.threat import RANKING, THREATS, parse_threats
from bench.workshop import attacker_backbone

DEFAULT_THREATS = "ignorant,semi-informed"
# A network, and what costs seconds: each reads something that the others do not.
DEFAULT_ATTACKERS = "shiftgcn-reid,bones-lda,flat-svm,gait-dyn,stats-rf,bones-lda:target=gender"


@dataclass(frozen=True)
class Plan:
    """A grid that is known to be possible.

    Args:
        jobs: What to evaluate, in order.
        left_out: Attackers of `all`, or of the default ones, that this data set has no labels for, with the reason.
    """

    store: ClipStore
    protocol: Protocol
    preset: Preset
    jobs: tuple[Job, ...]
    left_out: tuple[str, ...]


def make_plan(
    *,
    dataset: str,
    protocol: str | None,
    siblings: Sequence[str | None] = (),
    anonymizers: str | Sequence[Spec],
    attackers: str | Sequence[Spec] | None,
    threats: str,
    preset: Preset,
    seeds: Sequence[int],
    results: Path,
    controls: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """Parses and checks everything that a user may have got wrong, before anything is computed.

    Args:
        siblings: Other protocols whose results will be pooled with this one's: an attacker must be possible under all of them.
        anonymizers: Comma list, or what is meant by it.
        attackers: Comma list or `all`; None for the default ones. Of the latter two, those that the data set cannot support are
            left out; one that was named, or is given as such, is an error.
        controls: Whether `identity` and `null` are added if they were not named.

    Raises:
        UserError: with one line that says what is wrong and what would be right.
    """
    data = parse_spec(dataset, DATASETS)
    methods = parse_specs(anonymizers, ANONYMIZERS) if isinstance(anonymizers, str) else list(anonymizers)
    attackers = attackers.strip() if isinstance(attackers, str) else attackers
    panel = parse_specs(attackers or DEFAULT_ATTACKERS, ATTACKERS) if not attackers or isinstance(attackers, str) else attackers
    if attackers == "all":
        panel = [attacker for attacker in panel if not attacker.value.control]  # controls are not for every anonymizer
    for attacker in panel:
        _check_backbone(attacker)
        if attacker.value.target == ACTION:
            raise UserError(
                f"attacker {attacker}: the action is what a release is to keep; how much of it is left is measured anyway"
            )
    levels = parse_threats(threats)
    if not seeds:
        raise UserError("at least one seed is needed")
    chosen = choose_protocol(data, protocol)
    store = open_or_prepare(data, results, progress)
    instantiate(chosen, ACTION, store.labels, str(data))
    usable, left_out = [], []
    for attacker in panel:
        try:
            for one in (chosen, *(choose_protocol(data, name) for name in siblings)):
                instantiate(one, attacker.value.target, store.labels, str(data))
            usable.append(attacker)
        except ProtocolError as error:
            if attackers and attackers != "all":
                raise ProtocolError(f"attacker {attacker}: {error}") from error
            left_out.append(f"{attacker}: {error}")
    if not usable:
        raise ProtocolError(f"no attacker fits {data}: {'; '.join(left_out)}")
    if controls:
        named = {method.plugin.name for method in methods}
        methods = [*(parse_spec(name, ANONYMIZERS) for name in CONTROLS if name not in named), *methods]
    jobs = [Job(method, attacker, level, seed) for seed in seeds for method in methods for attacker in usable for level in levels]
    if controls:
        jobs += [job for job in _control_jobs(methods, usable, seeds) if job not in jobs]
    return Plan(store, chosen, preset, tuple(jobs), tuple(left_out))


def _control_jobs(methods: Sequence[Spec], attackers: Sequence[Spec], seeds: Sequence[int]) -> list[Job]:
    """What is known of every target without looking at the body, and without learning; on raw clips, which is enough."""
    identity = next(method for method in methods if method.plugin.name == CONTROLS[0])
    targets = dict.fromkeys(attacker.value.target for attacker in attackers)
    named = [target for target in targets if target != LINKAGE]
    controls = [parse_spec(f"{name}:target={target}", ATTACKERS) for target in named for name in (NUISANCE, SHUFFLED)]
    if LINKAGE in targets:  # clips look alike without anything learnt: wrong names would control nothing
        controls.append(parse_spec(NUISANCE_LINKAGE, ATTACKERS))
    return [Job(identity, control, THREATS[RANKING], seed) for seed in seeds for control in controls]


def _check_backbone(attacker: Spec) -> None:
    """Finds a neural attacker's network now rather than when it is needed."""
    try:
        attacker_backbone(attacker)
    except (LookupError, ImportError) as error:
        raise SpecError(f"attacker {attacker}: {error}") from error


def choose_protocol(dataset: Spec, name: str | None) -> Protocol:
    """A data set's protocol by its name, with or without its version; the first one by default.

    Raises:
        UserError: if the data set has no such protocol.
    """
    protocols = dataset.value.protocols
    default = next(iter(protocols.values()))
    if name is None:
        return default
    if fold := fold_of(name):
        return default.fold(*fold)
    for protocol in protocols.values():
        if name in (protocol.name, protocol.name.partition("/")[0]):
            return protocol
    raise UserError(
        f"{dataset.plugin.name} has no protocol {name!r}; it has {', '.join(p.name for p in protocols.values())}, folds over "
        "people (5-fold, or one of them, 5-fold-2) and loso"
    )


def protocol_names(dataset: str, name: str | None, results: Path) -> list[str | None]:
    """The protocols that a name stands for: all folds for "5-fold", one fold a person for "loso", else itself.

    Raises:
        UserError: if the data set is not there, or has fewer people than folds.
    """
    folds = re.fullmatch(r"(\d+)-fold|loso", name or "")
    if folds is None:
        return [name]
    people = open_or_prepare(parse_spec(dataset, DATASETS), results).labels[SUBJECT].nunique()
    count = int(folds[1] or people)
    if not 2 <= count <= people:
        raise UserError(f"{name}: {dataset} has {people} people; it takes two folds, and a person in each")
    return [f"{count}-fold-{number}" for number in range(1, count + 1)]
