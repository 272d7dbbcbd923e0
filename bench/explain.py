"""How a number came about: a record, and stage by stage what it rests on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.tree import Tree

from bench.files import UserError
from bench.inventory import Inventory
from bench.measure import measure
from bench.metrics.identification import cumulative_match
from bench.protocols import SUBJECT
from bench.records import Record
from bench.threat import Learning

_SHOWN = ("learning", "seed", "draw", "method")
_RANKS = (1, 2, 3, 5, 10, 20)
_WHO = ("anonymizer", "attacker", "utility", "inverter")


def find_record(inventory: Inventory, name: str) -> Record:
    """The record of a key, the beginning of a key, or a path.

    Raises:
        UserError: if there is none, or several.
    """
    stem = Path(name).stem if name.endswith(".json") else name
    found = [record for record in inventory.records if record.path.stem.startswith(stem)]
    if len(found) != 1:
        many = f"{len(found)} records begin with {stem!r}; give more of it" if found else f"no record begins with {stem!r}"
        raise UserError(f"{many} (bench table --json - names the records of each row)")
    return found[0]


def explain(inventory: Inventory, record: Record) -> Tree:
    """The record and all stages below it."""
    data, measured = record.data, measure([record])
    leakage = measured.leakage
    names = data["names"]
    tree = Tree(f"record {data['key']}: {names['anonymizer']} x {names['attacker']}, {data['threat']}, seed {data['seed']}")
    tree.add(f"data {data['dataset']} (fingerprint {data['data']})")
    tree.add(f"protocol {data['protocol']['name']}, preset {data['preset']['name']}")
    count = f"{data['test_pairs']} pairs" if "test_pairs" in data else f"{data['test_clips']} test clips"
    tree.add(
        f"{measured.metric} of {data['target']}: {leakage.value:.4f} [{leakage.low:.4f}, {leakage.high:.4f}], "
        f"of {count} of {data['test_people']} people; chance {data['chance']:.4f}, prior {data['prior']:.4f}"
    )
    if data["target"] == SUBJECT:
        tree.add(f"the right person is {_found_among(record)}")
    tree.add(f"model that attacks: {data['learning']}" + _validation(data["validation"]))
    manifest = record.manifest()
    versions = ", ".join(f"{name} {version}" for name, version in manifest["packages"].items())
    tree.add(f"made by {versions}; commit {manifest['commit'] or 'unknown'}")
    tree.add(f"on {manifest['device']}; {manifest['seconds']:.0f} s for all stages")
    shown: set[str] = set()
    for which in sorted(data["stages"], key=lambda name: name != "attack"):  # what the leakage comes from is first
        of = data["stages"][which]
        key = of.get("key") or min(inventory.with_content(of["content"]), default=f"content {of['content']}")
        _add(tree, f"{which}: ", inventory, key, shown)
    return tree


def _found_among(record: Record) -> str:
    """The cumulative match characteristic at a few ranks, of all releases together."""
    draws = record.draws()
    curve = cumulative_match(np.concatenate([of["attack"] for of in draws]), np.concatenate([of["label"] for of in draws]))
    return ", ".join(f"among the {k} first of {curve[k - 1]:.0%}" for k in _RANKS if k <= len(curve)) + " of the clips"


def _validation(quality: Mapping[str, float]) -> str:
    told = ", ".join(f"{name} {value:.3f}" for name, value in quality.items())
    but = "; raw only if surely above guessing" if Learning.RAW in quality else ""
    return f", chosen on its own validation part ({told}{but})" if told else ""


def _add(tree: Tree, name: str, inventory: Inventory, key: str, shown: set[str]) -> None:
    """Adds a stage and, the first time that it is shown, what it rests on."""
    if key not in inventory.stages:
        tree.add(f"{name}{key}, not on this disk")
        return
    stage = inventory.stages[key]
    if key in shown:
        tree.add(f"{name}{stage.state['name']} {key}, see above")
        return
    shown.add(key)
    branch = tree.add(name + _described(stage.state))
    for field, sources in sorted(inventory.sources(stage).items()):
        _add(branch, f"{field}: ", inventory, min(sources), shown)


def _described(state: Mapping[str, Any]) -> str:
    inputs = state["inputs"]
    who = [_plugin(inputs[name]) for name in _WHO if name in inputs]
    how = [f"{name} {inputs[name]}" for name in _SHOWN if name in inputs]
    said = ", ".join([*who, *how, f"content {state['content']}", f"{state['seconds']:.1f} s"])
    return f"{state['name']} {state['key']} (version {state['version']}): {said}"


def _plugin(described: Mapping[str, Any]) -> str:
    plain = {name: value for name, value in described.get("parameters", {}).items() if not isinstance(value, dict | list)}
    parameters = ",".join(f"{name}={value}" for name, value in plain.items())
    return f"{described['name']}{':' if parameters else ''}{parameters} (code {described['code']}, {described['provider']})"
