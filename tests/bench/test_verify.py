"""`bench store verify`: whatever is damaged is found, and measured again."""

import json
import shutil

import numpy as np
import pytest

from bench.records import records
from tests.tiny import RUN, bench, change_chance, change_predictions, cut_predictions, record_bytes, shrink_budget


@pytest.fixture(autouse=True)
def tiny_budget(monkeypatch):
    shrink_budget(monkeypatch)


def test_an_undamaged_store_is_found_to_be(measured):
    told = bench("store", "verify", results=measured)
    assert told.exit_code == 0
    assert "14 records read; nothing damaged" in told.stdout


def _spoil_model(results):
    file = next((results / "stages" / "train").glob("*/*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    return file.parent


def _spoil_record(results):
    record = next(records(results / "records"))
    record.path.write_text(json.dumps({**record.data, "seed": 5}))
    return record.path


def _cut_index(results):
    """Where clips begin in the rows of every release."""
    (stage,) = (results / "stages" / "normalise").glob("*/stage.json")
    index = stage.parent / "clips" / "index.npy"
    index.write_bytes(index.read_bytes()[:140])
    return stage.parent


def _change_clips(results):
    (meta,) = (results / "data").glob("*/meta.json")
    labels = meta.with_name("labels.csv")
    labels.write_text(labels.read_text().replace(",1,", ",2,", 1))
    return meta.parent


def _cut(path):
    path.write_bytes(path.read_bytes()[:-20])
    return path


def _cut_stage(results):
    return _cut(next(results.glob("stages/train/*/stage.json"))).parent


def _cut_scores(results):
    return _cut(next(results.glob("stages/predict/*/scores.npy"))).parent


def _cut_record(results):
    return _cut(next(records(results / "records")).path)


def _roll_labels(results):
    record = next(records(results / "records"))
    arrays = record.predictions()
    rolled = {name: np.roll(arrays[name], 1) for name in ("label", "subject")}
    np.savez(record.path.with_suffix(".npz"), **{**arrays, **rolled})
    return record.path


def _drop_manifest(results):
    record = next(records(results / "records"))
    record.path.with_name(f"{record.path.stem}.manifest.json").unlink()
    return record.path


def _flip_scores_of_a_published_record(results):
    shutil.rmtree(results / "stages")
    return change_predictions(results)


def _forge(name):
    def spoil(results):
        path = next(results.glob(f"stages/{name}/*/stage.json"))
        state = json.loads(path.read_text())
        path.write_text(json.dumps({**state, "info": {**state["info"], "rows": "0" * 16}}))
        return path.parent

    return spoil


def _cut_data(results):
    return _cut(next((results / "data").glob("*/index.npy"))).parent


SPOILT = {
    "model": _spoil_model,
    "record": _spoil_record,
    "predictions cut": cut_predictions,
    "predictions": change_predictions,
    "clips": _change_clips,
    "stage cut": _cut_stage,
    "scores cut": _cut_scores,
    "record cut": _cut_record,
    "labels": _roll_labels,
    "chance": change_chance,
    "manifest": _drop_manifest,
    "published": _flip_scores_of_a_published_record,
    "rows": _forge("normalise"),
    "released rows": _forge("release"),
    "index": _cut_index,
    "data cut": _cut_data,
}


@pytest.mark.filterwarnings("ignore:.* it is left out")
@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
def test_whatever_is_damaged_is_found(copied, spoil):
    path = spoil(copied)
    told = bench("store", "verify", results=copied)
    assert told.exit_code == 1
    assert f"DAMAGED {path}: " in told.stdout
    assert "1 damaged" in told.stdout


def test_damaged_records_and_stages_are_told_and_measured_again(copied):
    before = record_bytes(copied)
    empty, cut = [record.path for record in records(copied / "records")][:2]
    empty.write_text("")
    cut.write_bytes(cut.read_bytes()[:100])
    stage = next(copied.glob("stages/train/*/stage.json"))
    stage.write_text("")
    with pytest.warns(UserWarning, match="is damaged") as told:
        assert bench("table", results=copied).exit_code == 0
    assert {str(one.message) for one in told} == {
        f"{path}: it is damaged; it is left out, and `bench run` measures it again" for path in (empty, cut)
    }
    with pytest.warns(UserWarning, match="is damaged"):
        again = bench(*RUN, results=copied)
    assert again.exit_code == 0, again.output
    assert "2 of 14 records computed now" in again.output
    assert record_bytes(copied) == before


def test_records_of_earlier_versions_are_compared_with_their_stages(copied):
    first, second = list(records(copied / "records"))[:2]
    for record in (first, second):
        path = record.path.with_name(f"{record.path.stem}.manifest.json")
        path.write_text(json.dumps({name: value for name, value in record.manifest().items() if name != "sha256"}))
    told = bench("store", "verify", results=copied)
    assert told.exit_code == 0
    assert "nothing damaged, 2 records unsealed" in told.stdout
    arrays = first.predictions()
    np.savez(first.path.with_suffix(".npz"), **{**arrays, "attack": 1 - arrays["attack"]})
    told = bench("store", "verify", results=copied)
    assert told.exit_code == 1
    assert f"DAMAGED {first.path}: attack" in told.stdout
