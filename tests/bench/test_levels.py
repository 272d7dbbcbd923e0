"""Threat levels from end to end: who learns from what, and what is asked of linkage."""

import json

import pytest

from bench.measured import LINKAGE_COLUMNS
from bench.records import records
from tests.tiny import HERE, bench, shrink_budget, stages


@pytest.fixture(autouse=True)
def tiny_budget(monkeypatch):
    shrink_budget(monkeypatch)


def keys(found):
    return {key for row in found.values() for key in row["record"]}


FOR_LINKAGE = "synthetic:people=8,motions=5,cameras=1"
LEVELS = "ignorant,lazy-informed,semi-informed,inverter"


@pytest.fixture(scope="module")
def all_levels(tmp_path_factory):
    """A run of every threat level, with a linkage attacker beside one that names people."""
    results = tmp_path_factory.mktemp("levels")
    command = [
        "run",
        "--dataset",
        FOR_LINKAGE,
        "--anonymizer",
        "gauss:std=0.1",
        "--no-mlflow",
        *HERE,
        "--threat",
        LEVELS,
    ]
    attackers = "shiftgcn-reid:backbone=simple,bones-lda,verify-shiftgcn:backbone=simple"
    with pytest.MonkeyPatch.context() as patch:
        shrink_budget(patch)
        outcome = bench(*command, "--attacker", attackers, "--json", str(results / "rows.json"), results=results)
    assert outcome.exit_code == 0, outcome.output
    return results, json.loads((results / "rows.json").read_text())["rows"]


def assert_best_of_those_that_saw_the_release(data):
    adapted = {learning: quality for learning, quality in data["validation"].items() if learning != "raw"}
    best = max(adapted, key=adapted.get)
    assert data["learning"] in {best, "raw"}
    assert data["learning"] == best or data["validation"]["raw"] > adapted[best]


def test_each_threat_level_learns_from_what_it_may(all_levels):
    results, _ = all_levels
    by_key = {s["key"]: s for s in stages(results, "train")}
    releases = {
        (s["inputs"]["anonymizer"]["name"], s["inputs"].get("draw")): s["info"]["rows"] for s in stages(results, "release")
    }
    raw, own, holder = (releases[key] for key in (("identity", None), ("gauss", "attacker/0"), ("gauss", "holder/0")))
    restored = {s["info"]["rows"] for s in stages(results, "restore")}
    seen = {}
    for record in records(results / "records"):
        if (record.data["anonymizer"]["name"], record.data["attacker"]["name"]) == ("gauss", "shiftgcn-reid"):
            model = by_key[record.data["stages"]["attacker"]["key"]]["inputs"]
            asked = next(s for s in stages(results, "predict") if s["key"] == record.data["stages"]["attack"]["key"])["inputs"]
            seen[record.data["threat"]] = record.data, model, asked
    assert set(seen) == set(LEVELS.split(","))
    assert seen["ignorant"][1]["clips"] == seen["inverter"][1]["clips"] == raw
    assert seen["lazy-informed"][1]["clips"] == own
    assert seen["semi-informed"][1]["clips"] == (raw if seen["semi-informed"][0]["learning"] == "raw" else own)
    assert seen["lazy-informed"][1]["learning"] == "refit"
    assert seen["lazy-informed"][1]["start"]["clips"] == raw
    data = seen["semi-informed"][0]
    assert set(data["validation"]) == {"scratch", "fine-tune", "raw"}
    assert_best_of_those_that_saw_the_release(data)
    assert seen["inverter"][2]["clips"] in restored
    assert all(seen[level][2]["clips"] == holder for level in LEVELS.split(",")[:3])
    assert seen["inverter"][0]["inversion"]["mpjpe_m"] < seen["inverter"][0]["inversion"]["mpjpe_before_m"]
    assert own in {s["inputs"]["clips"] for s in stages(results, "invert")}
    for s in stages(results, "invert"):
        assert s["inputs"]["raw"] == raw


def test_an_attacker_with_hand_made_features_has_nothing_to_refit(all_levels):
    results, rows = all_levels
    found = {row["threat"]: row for row in rows if (row["anonymizer"], row["attacker"]) == ("gauss:std=0.1", "bones-lda")}
    models = {
        r.data["threat"]: r.data["stages"]["attacker"]["key"]
        for r in records(results / "records")
        if r.data["key"] in keys(found)
    }
    assert models["lazy-informed"] != models["ignorant"] == models["inverter"]
    same = "lazy-informed" if found["semi-informed"]["learning"] == "scratch" else "ignorant"
    assert models["semi-informed"] == models[same]
    assert [found[level]["learning"] for level in ("ignorant", "lazy-informed", "inverter")] == ["raw", "scratch", "raw"]


def test_an_attacker_that_learns_from_its_validation_clips_is_judged_without(all_levels):
    """Otherwise it would know the clips that it is judged by, and what it learnt from raw clips would never be chosen."""
    results, _ = all_levels
    found = (r.data for r in records(results / "records") if r.data["threat"] == "semi-informed")
    data = next(d for d in found if (d["anonymizer"]["name"], d["attacker"]["name"]) == ("gauss", "bones-lda"))
    assert set(data["validation"]) == {"scratch", "raw"}
    assert_best_of_those_that_saw_the_release(data)
    trained = {s["key"]: s for s in stages(results, "train")}
    chosen = trained[data["stages"]["attacker"]["key"]]
    same = [s for s in trained.values() if s["inputs"]["clips"] == chosen["inputs"]["clips"] and "attacker" in s["inputs"]]
    same = [s for s in same if s["inputs"]["attacker"]["name"] == "bones-lda"]
    assert len({s["inputs"]["part"] for s in same}) == 2
    judged = next(s for s in same if s["inputs"]["part"] != chosen["inputs"]["part"])
    assert judged["info"]["clips"] < chosen["info"]["clips"]
    asked = [s["inputs"] for s in stages(results, "predict") if s["inputs"]["model"] == judged["key"]]
    assert asked
    assert all(inputs["part"] == judged["inputs"]["part"] for inputs in asked)


def test_linkage_rows_hold_their_own_numbers_and_agree_with_the_predictions(all_levels):
    results, rows = all_levels
    found = [row for row in rows if row["target"] == "linkage"]
    assert len(found) == 3 * 4 + 1
    (room,) = (row for row in found if row["attacker"] == "nuisance-linkage")
    assert (room["anonymizer"], room["threat"]) == ("identity", "semi-informed")
    for row in found:
        assert set(LINKAGE_COLUMNS) <= set(row)
        assert (row["metric"], row["chance"], row["prior"]) == ("AUC", 0.5, 0.5)
        wrong = row.get("leakage_high", 1) < 0.5  # reliably: that leaks as well
        assert row["leakage_normalised"] == pytest.approx(max(0, (1 - 2 * wrong) * 2 * (row["leakage"] - 0.5)))
        assert row["leakage"] == row[f"auc_{row['regime'].replace('-', '_')}"]
        assert not {"top1", "top5", "prior_top5"} & set(row)
    by_key = {record.data["key"]: record for record in records(results / "records")}
    row = next(row for row in found if (row["anonymizer"], row["threat"]) == ("identity", "semi-informed"))
    arrays = by_key[row["record"][0]].predictions()
    of = arrays["regime"] == by_key[row["record"][0]].data["regimes"].index(row["regime"])
    mated, others = (arrays["attack"][0, of & m] for m in (arrays["mated"], ~arrays["mated"]))
    above = (mated[:, None] > others[None]).mean() + 0.5 * (mated[:, None] == others[None]).mean()
    assert row["leakage"] == pytest.approx(above)
    assert ((arrays["enrolled_subject"] == arrays["probe_subject"]) == arrays["mated"]).all()
    null = next(row for row in found if (row["anonymizer"], row["threat"]) == ("null", "semi-informed"))
    assert null["leakage"] == 0.5
    assert null["leakage_normalised"] == null["disclosure"] == pytest.approx(0, abs=1e-9)


def test_enrolled_clips_are_raw_for_who_knows_nothing_and_the_attackers_own_otherwise(all_levels):
    results, _ = all_levels
    releases = {
        (s["inputs"]["anonymizer"]["name"], s["inputs"].get("draw")): s["info"]["rows"] for s in stages(results, "release")
    }
    asked = {s["key"]: s["inputs"] for s in stages(results, "predict")}
    for record in records(results / "records"):
        if record.data["target"] == "linkage" and record.data["anonymizer"]["name"] == "gauss":
            enrolled = asked[record.data["stages"]["attack"]["key"]]["enrolled"]
            raw = record.data["threat"] in ("ignorant", "inverter")
            assert enrolled == (releases["identity", None] if raw else releases["gauss", "attacker/0"])
