"""`bench run` from end to end on a few synthetic people with a tiny budget."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bench.measured import COLUMNS, LINKAGE_COLUMNS
from bench.metrics.geometry import MEASURES
from bench.records import newest, records
from tests.tiny import DATA, HERE, RUN, bench, record_bytes, shrink_budget


@pytest.fixture(autouse=True)
def tiny_budget(monkeypatch):
    shrink_budget(monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run and its JSON document."""
    results = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        shrink_budget(patch)
        outcome = bench(*RUN, "--json", str(results / "rows.json"), results=results)
    assert outcome.exit_code == 0, outcome.output
    return results, json.loads((results / "rows.json").read_text()), outcome


def test_rows_have_the_common_format_and_sane_values(finished):
    _, document, _ = finished
    assert document["schema"] == 1
    assert document["failed"] == []
    rows = document["rows"]
    assert len(rows) == 3 * 2 * 2 + 2  # and what is known without looking at the body, or without learning
    for row in rows:
        # Identities have no area under a curve, nobody has five test clips here, there is one seed, and one release of most.
        absent = {"auc", "auc_low", "auc_high", "top1_of_5_clips", "top1_of_10_clips", "leakage_seed_std"}
        random = row["anonymizer"].startswith("gauss")
        absent |= set() if random else {"leakage_draw_std"}
        assert row["draws"] == (3 if random else 1)
        absent |= {f"top1_of_{size}_clips_{end}" for size in (5, 10) for end in ("low", "high")}
        # Actions are tested on two people: of so few no interval is stated.
        of_two = ("action", "utility", "transfer", *MEASURES)
        absent |= {name for name in COLUMNS if name.startswith(of_two) and name.endswith(("_low", "_high"))}
        assert set(row) == set(COLUMNS) - set(LINKAGE_COLUMNS) - absent
        assert row["top1"] <= row["mrr"] <= 1
        assert row["p95_person"] <= row["worst_person"] <= 1
        assert 0 <= row["information_low"] <= row["information"] <= row["information_high"] <= 2
        assert row["information_share"] == pytest.approx(row["information"] / 2)  # of the four people
        assert row["min_entropy_leakage"] == pytest.approx(np.log2(max(row["top1"], 0.25) / 0.25))
        assert row["leakage_low"] <= row["leakage"] <= row["leakage_high"]
        assert 0 <= row["leakage_normalised"] <= 1
        assert row["transform_ms"] > 0
        learnt = 3 * 25 if row["anonymizer"] == "null" else 0  # one pose
        assert row["learnt_values"] == learnt
        assert (row["fit_seconds"] > 0) == (learnt > 0)
        assert row["causal"] == 1
        assert row["chance"] == 0.25
        assert row["prior"] == 0.25
        assert row["seeds"] == 1
        assert "builtin" in row["provider"]
    by = {(r["anonymizer"], r["attacker"], r["threat"]): r for r in rows}
    identity = by["identity", "bones-lda", "semi-informed"]
    assert identity["utility_retention"] == 1
    assert identity["leakage"] == by["identity", "bones-lda", "ignorant"]["leakage"] > 0.5
    assert by["null", "bones-lda", "semi-informed"]["leakage"] == 0.25
    assert by["null", "shiftgcn-reid:backbone=simple", "semi-informed"]["leakage"] == 0.25
    assert "single-draw" not in by["gauss:std=0.1", "bones-lda", "ignorant"]["flags"]


def test_the_document_says_what_its_rows_say_together(finished):
    _, document, _ = finished
    (grid,) = document["grids"]
    assert grid["failed_controls"] == []
    assert set(grid["ranks"]) == {"identity", "null"}
    assert grid["withheld"] == {"gauss:std=0.1": ["weak-attacker", "nuisance"]}
    assert {row["anonymizer"] for row in document["rows"]} == {"identity", "null", "gauss:std=0.1"}
    assert grid["ranks"]["null"][0] == 1
    assert set(grid["pareto"]) <= set(grid["ranks"])
    assert 0 <= grid["hypervolume"][1] <= grid["hypervolume"][0] <= grid["hypervolume"][2] <= 1
    assert grid["within"]["0.05"] == "null"


def test_poses_and_groups_of_people_are_in_the_rows(finished):
    _, document, _ = finished
    by = {(r["anonymizer"], r["attacker"], r["threat"]): r for r in document["rows"]}
    identity = by["identity", "bones-lda", "semi-informed"]
    assert (identity["mpjpe"], identity["bone_error"], identity["jerk_ratio"]) == (0, 0, 1)
    noisy = by["gauss:std=0.1", "bones-lda", "semi-informed"]
    # The distance of two points with noise of 0.1 m on each coordinate is 0.1 m x sqrt(2) x sqrt(8 / pi); the root has none.
    assert noisy["mpjpe"] == pytest.approx(0.1 * 2**0.5 * (8 / np.pi) ** 0.5 * 24 / 25, rel=0.05)
    assert noisy["jerk_ratio"] > 2
    assert identity["transfer_retention"] == 1
    assert identity["p_leak"] < 0.05
    assert by["null", "bones-lda", "semi-informed"]["p_leak"] == 0.5
    assert identity["group_most"].split("=")[0] in ("gender", "height_class")
    assert 0 <= identity["group_gap"] <= 1
    assert 0.001 <= identity["group_gap_p"] <= 1


def test_shared_stages_are_computed_once(finished):
    results, _, _ = finished
    trained = list((results / "stages" / "train").glob("*/stage.json"))
    # Utility of two kinds and two attackers on raw clips; on null and on gauss these, and the neural attacker fine-tuned.
    # bones-lda once more on each without its validation clips, to choose by; and two controls.
    assert len(trained) == 4 + 5 + 5 + 3 + 2


def stages(results, name):
    return [json.loads(file.read_text()) for file in (results / "stages" / name).glob("*/stage.json")]


def test_the_semi_informed_attacker_learns_from_its_own_draw_and_never_from_the_holders(finished):
    results, _, _ = finished
    released = [s for s in stages(results, "release") if s["inputs"]["anonymizer"]["name"] == "gauss"]
    rows = {s["inputs"]["draw"]: s["info"]["rows"] for s in released}
    assert set(rows) == {"holder/0", "holder/1", "holder/2", "attacker/0"}
    assert len(set(rows.values())) == 4
    trained = [s["inputs"] for s in stages(results, "train")]
    for_use = [s for s in trained if "utility" in s or s["attacker"]["parameters"]["target"] == "action"]
    used = {s["clips"] for s in for_use}
    attacked = {s["clips"] for s in trained if s not in for_use}
    assert rows["attacker/0"] in attacked - used
    assert rows["holder/0"] in used - attacked
    assert not {rows["holder/1"], rows["holder/2"]} & (used | attacked)  # nobody learns from the other releases
    asked = {s["key"]: s["inputs"]["clips"] for s in stages(results, "predict")}
    in_records = (of for record in records(results / "records") for of in record.data["stages"].items())
    scored = {asked[of["key"]] for name, of in in_records if name.startswith("attack/") or name == "attack"}
    assert {rows[f"holder/{draw}"] for draw in range(3)} <= scored
    assert rows["attacker/0"] not in scored


def test_one_release_of_a_random_method_has_no_rank(finished, tmp_path, monkeypatch):
    """Positive control of the flag: with a preset of one draw and one seed it is raised, and withholds the rank."""
    from bench import presets

    monkeypatch.setitem(presets.PRESETS, "quick", dataclasses.replace(presets.PRESETS["quick"], draws=1))
    attacker = ("--attacker", "bones-lda", "--threat", "semi-informed")
    outcome = bench(*RUN, *attacker, "--json", str(tmp_path / "rows.json"), results=tmp_path)
    assert outcome.exit_code == 0, outcome.output
    document = json.loads((tmp_path / "rows.json").read_text())
    assert "single-draw" in document["grids"][0]["withheld"]["gauss:std=0.1"]


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
    assert data["validation"][data["learning"]] == max(data["validation"].values())
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
    assert data["validation"][data["learning"]] == max(data["validation"].values())
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


def test_weak_attackers_and_controls_do_not_rank(finished, monkeypatch):
    from bench import floors
    from bench.grid import trade_off
    from bench.summary import measure_all

    results, _, _ = finished
    measured = measure_all(records(results / "records"))
    ranked = {point.anonymizer: point for point in trade_off(measured, "semi-informed")}
    assert {point.attacker for point in ranked.values()} <= {"bones-lda", "shiftgcn-reid:backbone=simple"}
    strongest = ranked["gauss:std=0.1"].attacker
    monkeypatch.setattr(floors, "FLOORS", {(DATA, "xrep/1", "quick"): {strongest: 1.01}})
    measured = measure_all(records(results / "records"))
    assert all(("weak-attacker" in m.flags) == (m.first["names"]["attacker"] == strongest) for m in measured)
    again = {point.anonymizer: point for point in trade_off(measured, "semi-informed")}
    assert again["gauss:std=0.1"].leakage.value == ranked["gauss:std=0.1"].leakage.value  # it leaks, however weak the attacker
    everyone = {"bones-lda": 1.01, "shiftgcn-reid:backbone=simple": 1.01}
    monkeypatch.setattr(floors, "FLOORS", {(DATA, "xrep/1", "quick"): everyone})
    assert trade_off(measure_all(records(results / "records")), "semi-informed") == []


def test_what_the_room_gives_away_is_flagged(finished):
    from dataclasses import replace

    from bench.summary import _flags, measure_all

    results, _, _ = finished
    measured = measure_all(records(results / "records"))
    room = next(m for m in measured if m.first["attacker"]["name"] == "nuisance")
    assert room.flags == ()
    attack = next(m for m in measured if m.first["names"]["attacker"] == "bones-lda" and "nuisance" not in m.flags)
    assert attack.leakage.low > room.leakage.value
    telling = replace(room, leakage=replace(room.leakage, value=attack.leakage.low + 0.01))
    assert "nuisance" in _flags(attack, [telling if m is room else m for m in measured])


def leaking(measured, value, low):
    """The same with another leakage."""
    estimate = dataclasses.replace(measured.leakage, value=value, low=low, draws=np.full_like(measured.leakage.draws, value))
    return dataclasses.replace(measured, leakage=estimate)


def chosen(measured, anonymizer, attacker="bones-lda", threat="semi-informed"):
    found = (m for m in measured if (m.first["names"]["attacker"], m.first["threat"]) == (attacker, threat))
    return next(m for m in found if m.first["anonymizer"]["name"] == anonymizer)


def test_the_interval_of_the_worst_attacker_is_one_for_the_largest_of_several(finished):
    """Where all attackers are at chance, the best of them looks better; its interval must not say that it is."""
    from bench.grid import trade_off
    from bench.measured import METRIC
    from bench.metrics.uncertainty import People
    from bench.summary import measure_all

    measured = measure_all(records(finished[0] / "records"))
    template = chosen(measured, "gauss")
    assert template.row()["metric"] == METRIC

    def attacker(people, rng):
        hits = (rng.random(len(subjects)) < 0.25 + 0.15 * rng.standard_normal(12)[subjects]).astype(float)
        found = people.estimate(people.balanced_mean(hits, subjects))
        return dataclasses.replace(template, leakage=found)

    subjects = np.repeat(np.arange(12), 10)
    below = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        people = People.resample(subjects, rng, draws=400)
        (point,) = trade_off([attacker(people, rng) for _ in range(6)], "semi-informed")
        assert point.leakage.low <= point.leakage.value <= point.leakage.high
        below += point.leakage.low <= 0
    assert below / 150 > 0.93


def test_each_flag_that_withholds_a_rank_is_raised_by_what_it_names(finished):
    from bench.grid import Grid
    from bench.summary import WITHHOLDING, _flags, measure_all

    measured = measure_all(records(finished[0] / "records"))
    gauss, null = chosen(measured, "gauss"), chosen(measured, "null")
    assert not set(gauss.flags) & set(WITHHOLDING)
    assert not Grid.of(measured).failed_controls
    shuffled = next(m for m in measured if m.first["attacker"]["name"] == "shuffled-labels")
    for control, name in ((leaking(null, 0.9, 0.8), "null"), (leaking(shuffled, 0.9, 0.8), "shuffled")):
        table = [control if m.first == control.first else m for m in measured]
        assert "control-failed" in _flags(gauss, table), name
        table = [dataclasses.replace(m, flags=_flags(m, table)) for m in table]
        grid = Grid.of(table)
        assert len(grid.failed_controls) == 1
        # one attacker's failure on null costs the method its rank, as does that of a target
        assert "gauss:std=0.1" not in grid.ranks
    alone = [m for m in measured if m.first["anonymizer"]["name"] != "null"]
    assert "no-control" in _flags(gauss, alone)
    ignorant = leaking(chosen(measured, "gauss", threat="ignorant"), 1.0, 1.0)
    poor = leaking(gauss, 0.3, 0.3)
    assert "frozen-beats-retrained" in _flags(poor, [ignorant if m.first == ignorant.first else m for m in measured])
    raw = {**gauss.first, "stages": chosen(measured, "identity").first["stages"], "draws": 1}
    same = dataclasses.replace(gauss, records=(dataclasses.replace(gauss.records[0], data=raw),))
    assert "pass-through" in _flags(same, measured)
    shared = {**gauss.first["protocol"], "splits": {"subject": {"shares": True}}}
    moment = dataclasses.replace(gauss.records[0], data={**gauss.first, "protocol": shared})
    assert "shared-performances" in _flags(dataclasses.replace(gauss, records=(moment,)), measured)


def test_a_smaller_panel_or_fewer_seeds_cost_the_rank(finished):
    """The worst attacker may be the one that is missing."""
    from bench.grid import Grid
    from bench.summary import _flags, measure_all

    measured = measure_all(records(finished[0] / "records"))
    gauss = chosen(measured, "gauss")
    assert "incomplete-panel" not in gauss.flags
    missing = [m for m in measured if m is not chosen(measured, "gauss", "shiftgcn-reid:backbone=simple")]
    assert "incomplete-panel" in _flags(gauss, missing)
    grid = Grid.of([dataclasses.replace(m, flags=_flags(m, missing)) for m in missing])
    assert {p.anonymizer: p.withheld for p in grid.points if p.withheld} == {"gauss:std=0.1": ("incomplete-panel",)}
    identity = chosen(measured, "identity")
    twice = dataclasses.replace(identity, records=identity.records * 2)
    assert "incomplete-panel" in _flags(gauss, [twice if m is identity else m for m in measured])


def test_flags_of_the_attacker_that_ranks_withhold_the_rank_and_those_of_others_do_not(finished):
    from bench.grid import trade_off
    from bench.summary import measure_all

    measured = measure_all(records(finished[0] / "records"))
    names = ("bones-lda", "shiftgcn-reid:backbone=simple")
    first, second = (dataclasses.replace(chosen(measured, "gauss", name), flags=()) for name in names)
    first, second = leaking(first, 0.9, 0.8), leaking(second, 0.5, 0.4)
    for flag in ("single-draw", "nuisance", "below-prior", "few-people"):
        (point,) = trade_off([dataclasses.replace(first, flags=(flag,)), second], "semi-informed")
        assert point.withheld == (flag,)
        (point,) = trade_off([first, dataclasses.replace(second, flags=(flag,))], "semi-informed")
        assert point.withheld == ()
    frozen = dataclasses.replace(chosen(measured, "gauss", names[1], threat="ignorant"), flags=())
    misled = dataclasses.replace(second, flags=("frozen-beats-retrained",))
    (point,) = trade_off([first, misled, leaking(frozen, 0.8, 0.7)], "semi-informed")
    assert point.withheld == ()  # the first reads more than that anyway
    (point,) = trade_off([first, misled, leaking(frozen, 1.0, 0.9)], "semi-informed")
    assert point.withheld == ("frozen-beats-retrained",)
    (point,) = trade_off([first, dataclasses.replace(second, flags=("undertrained",))], "semi-informed")
    assert point.withheld == ("undertrained",)  # it might have found more than the first


def test_of_too_few_people_nothing_is_ranked(finished):
    from bench.grid import Grid
    from bench.metrics.uncertainty import Sample
    from bench.summary import _flags, measure_all

    measured = measure_all(records(finished[0] / "records"))
    gauss = chosen(measured, "gauss")
    assert "few-people" not in gauss.flags
    few = dataclasses.replace(gauss, leakage=dataclasses.replace(gauss.leakage, sample=Sample((3,))))
    assert "few-people" in _flags(few, measured)
    raw = chosen(measured, "identity")
    unknown = dataclasses.replace(raw.leakage, low=np.nan, high=np.nan, sample=Sample((3,)))
    table = [dataclasses.replace(m, leakage=unknown) if m is raw else m for m in measured]
    assert "weak-attacker" not in _flags(gauss, table)
    assert not Grid.of(table).failed_controls


def test_a_number_below_the_prior_is_marked(finished):
    from bench.summary import _flags, measure_all

    measured = measure_all(records(finished[0] / "records"))
    identity = chosen(measured, "identity")
    uneven = dataclasses.replace(identity.records[0], data={**identity.first, "prior": 0.99})
    named = {**identity.named, "top1": dataclasses.replace(identity.named["top1"], high=0.9)}
    assert "below-prior" in _flags(dataclasses.replace(identity, records=(uneven,), named=named), measured)
    assert "below-prior" not in identity.flags


@pytest.mark.parametrize(("epochs", "raised"), [(2, True), (3, False), (30, False)])
def test_an_attacker_that_saw_little_is_marked(finished, epochs, raised):
    """Also if it is one of several networks that attack together."""
    from bench.summary import _flags, measure_all

    measured = measure_all(records(finished[0] / "records"))
    identity = chosen(measured, "identity", "shiftgcn-reid:backbone=simple")
    assert "undertrained" not in identity.flags
    training = {"joint": {"curves": {"train_loss": [1.0] * 30}}, "bone": {"curves": {"train_loss": [1.0] * epochs}}}
    record = dataclasses.replace(identity.records[0], data={**identity.first, "training": training})
    assert ("undertrained" in _flags(dataclasses.replace(identity, records=(record,)), measured)) == raised


def test_the_table_says_first_that_controls_failed(finished):
    import io

    from rich.console import Console

    from bench.report.table import print_tables
    from bench.summary import measure_all

    measured = measure_all(records(finished[0] / "records"))
    null = chosen(measured, "null")
    for rows, first in (
        (measured, "synthetic"),
        ([leaking(m, 0.9, 0.8) if m is null else m for m in measured], "CONTROL FAILED: "),
    ):
        text = io.StringIO()
        print_tables(rows, Console(file=text, width=200))
        assert text.getvalue().startswith(first)


def test_seeds_are_averaged_and_counted(tmp_path):
    outcome = bench(*RUN, "--seeds", "2", "--threat", "semi-informed", "--json", str(tmp_path / "rows.json"), results=tmp_path)
    assert outcome.exit_code == 0
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert len(rows) == 6 + 2
    for row in rows:
        assert row["seeds"] == len(row["record"]) == 2
        assert "single-draw" not in row["flags"]
    row = next(r for r in rows if r["anonymizer"] == "gauss:std=0.1" and r["attacker"].startswith("shiftgcn"))
    singles = []
    for record in records(tmp_path / "records"):
        if record.data["key"] in row["record"]:
            arrays = record.predictions()
            hits = arrays["attack"].argmax(2) == arrays["label"]  # (draws, clips)
            singles.append([np.mean([of[arrays["label"] == k].mean() for k in range(4)]) for of in hits])
    assert np.shape(singles) == (2, 3)
    assert row["draws"] == 6
    assert row["leakage"] == pytest.approx(np.mean(singles))
    within = np.mean(np.var(singles, axis=1, ddof=1))
    assert row["leakage_draw_std"] == pytest.approx(within**0.5)
    assert row["leakage_seed_std"] == pytest.approx(max(np.var(np.mean(singles, axis=1), ddof=1) - within / 3, 0) ** 0.5)


def test_records_of_older_code_neither_count_as_seeds_nor_stand_beside_the_new_ones(finished, tmp_path):
    results, _, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(results / "records", copy / "records")
    for path in list((copy / "records").rglob("*.json")):
        if not path.name.endswith(".manifest.json"):
            data = json.loads(path.read_text())
            data["anonymizer"]["code"] += 1
            path.with_name(f"new{path.name}").write_text(json.dumps(data))
            shutil.copy(path.with_suffix(".npz"), path.with_name(f"new{path.stem}.npz"))
    outcome = bench("table", "--json", "-", results=copy)
    rows = json.loads(outcome.stdout)["rows"]
    assert len(rows) == 14
    assert {row["seeds"] for row in rows} == {1}
    assert "14 records of older code are left out" in outcome.stderr
    from bench.summary import measure_all

    both = measure_all(records(copy / "records"))
    assert len(both) == 28
    assert {len(m.records) for m in both} == {1}
    kept, older = newest(records(copy / "records"))
    assert older == 14
    assert all(record.path.name.startswith("new") for record in kept)


def test_controls_are_added_and_their_absence_is_flagged(tmp_path):
    command = ["run", "--dataset", DATA, "--anonymizer", "gauss", "--attacker", "bones-lda", "--no-mlflow", *HERE]
    outcome = bench(*command, "--no-controls", "--json", str(tmp_path / "a.json"), results=tmp_path)
    assert outcome.exit_code == 0
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert {row["anonymizer"] for row in rows} == {"gauss:std=0.05"}
    assert all("no-control" in row["flags"] for row in rows)
    bench(*command, "--json", str(tmp_path / "b.json"), results=tmp_path)
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert {row["anonymizer"] for row in rows} == {"identity", "null", "gauss:std=0.05"}
    assert not any("no-control" in row["flags"] for row in rows)


def test_folds_are_pooled_into_one_table(tmp_path):
    """Everybody is tested by models that have not seen them, and the table has one row a pair, not one a fold."""
    people = ["--dataset", DATA.replace("people=4", "people=8"), "--anonymizer", "identity", "--no-controls", *HERE]
    asked = ["--attacker", "bones-lda:target=gender,bones-knn:target=gender", "--threat", "semi-informed", "--no-mlflow"]
    run = bench("run", *people, *asked, "--protocol", "2-fold", "--json", "-", results=tmp_path)
    assert run.exit_code == 0, run.output
    rows = json.loads(run.stdout)["rows"]
    assert [(row["protocol"], row["attacker"]) for row in rows] == [
        ("2-fold/1", "bones-knn:target=gender"),
        ("2-fold/1", "bones-lda:target=gender"),
    ]
    assert all(row["test_people"] == 8 and row["test_clips"] == 8 * 3 * 2 and len(row["record"]) == 2 for row in rows)
    found = list(records(tmp_path / "records"))
    assert len(found) == 4
    of_one = [r.predictions() for r in found if r.data["attacker"]["name"] == "bones-lda"]
    hits = [p["attack"][0].argmax(1) == p["label"] for p in of_one]
    assert rows[1]["top1"] == pytest.approx(np.concatenate(hits).mean())
    folds = [np.mean([h[p["label"] == k].mean() for k in (0, 1)]) for h, p in zip(hits, of_one, strict=True)]
    assert rows[1]["leakage"] == pytest.approx(np.mean(folds))  # each model is judged by itself
    aucs = [roc_auc_score(p["label"], p["attack"][0, :, 1]) for p in of_one]
    assert rows[1]["auc"] == pytest.approx(np.mean(aucs))
    again = bench("table", "--protocol", "2-fold", "--json", "-", results=tmp_path)
    assert json.loads(again.stdout)["rows"] == rows
    one = bench("table", "--protocol", "2-fold-1", "--json", "-", results=tmp_path)
    assert [row["test_people"] for row in json.loads(one.stdout)["rows"]] == [4, 4]


def test_folds_that_one_of_them_cannot_ask_are_refused_before_anything_is_computed(tmp_path):
    """Of four people the tall one, alone of her kind, is in one fold: nobody can learn from the other what tall is."""
    asked = ["--attacker", "bones-lda:target=height_class", "--protocol", "2-fold", "--no-mlflow"]
    run = bench("run", "--dataset", DATA, *asked, results=tmp_path)
    assert run.exit_code == 2
    assert "is tested but never in training" in run.output
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("9-fold", "9-fold: .* has 4 people; it takes two folds, and a person in each"),
        ("1-fold", "has 4 people; it takes two folds"),
        ("5-fold-6", "there is no fold 6 of 5"),
        ("folds", "has no protocol 'folds'; it has .*, folds over people"),
    ],
)
def test_wrong_folds(tmp_path, protocol, message):
    run = bench("run", "--dataset", DATA, "--protocol", protocol, results=tmp_path)
    assert run.exit_code == 2
    assert re.search(message, run.output)


@pytest.mark.slow
def test_mlflow_shows_the_table_the_figure_and_a_run_a_record(finished):
    import mlflow

    from bench.tracking import sync, tracking_uri

    results, document, _ = finished
    assert sync(results) == 15
    assert sync(results) == 0
    client = mlflow.MlflowClient(tracking_uri(results))
    (experiment,) = client.search_experiments(filter_string=f"name LIKE '{DATA}%'")
    (run,) = client.search_runs([experiment.experiment_id], "tags.kind = 'trade-off'")
    parent = run.info.run_id
    assert {file.path for file in client.list_artifacts(parent)} == {"pareto.png", "trade-off.json"}
    assert run.inputs.dataset_inputs[0].dataset.name == DATA
    assert run.data.metrics["worst leakage/null"] == 0
    children = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert len(children) == 14
    rows = {row["record"][0]: row for row in document["rows"]}
    for child in children:
        row = rows[child.data.params["record"]]
        assert child.data.metrics["leakage"] == row["leakage"]
        assert child.data.metrics["leakage_high"] == row["leakage_high"]
        assert child.inputs.dataset_inputs
    curves = [c for c in children if c.data.params["attacker"].startswith("shiftgcn")]
    assert len(client.get_metric_history(curves[0].info.run_id, "attacker_train_loss")) >= 2
    client.delete_run(children[0].info.run_id)
    (results / "runs").rename(results / "runs-aside")
    assert sync(results) == 1  # of no invocation that is known
    (results / "runs-aside").rename(results / "runs")


@pytest.mark.slow
def test_a_tracking_server_that_is_gone_costs_no_record(finished, monkeypatch):
    results, _, _ = finished
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    told = bench(*[argument for argument in RUN if argument != "--no-mlflow"], results=results)
    assert told.exit_code == 0
    assert "MLflow could not be written" in told.output
    assert "`bench mlflow sync` writes what is missing" in told.output


def test_the_same_command_again_computes_nothing(finished):
    results, document, _ = finished
    before = record_bytes(results)
    times = {p: p.stat().st_mtime_ns for p in (results / "stages").rglob("*") if p.is_file()}
    outcome = bench(*RUN, "--json", str(results / "again.json"), results=results)
    assert outcome.exit_code == 0
    assert "0 of 14 records computed now" in outcome.output
    assert json.loads((results / "again.json").read_text()) == document
    assert record_bytes(results) == before
    assert {p: p.stat().st_mtime_ns for p in (results / "stages").rglob("*") if p.is_file()} == times


def test_lost_records_come_back_from_stages_and_lost_stages_from_nothing_to_the_same_bytes(finished, tmp_path):
    results, _, _ = finished
    before = record_bytes(results)
    copy = tmp_path / "copy"
    shutil.copytree(results, copy)
    shutil.rmtree(copy / "records")
    assert bench(*RUN, results=copy).exit_code == 0
    assert record_bytes(copy) == before
    shutil.rmtree(copy / "records")
    shutil.rmtree(copy / "stages")
    shutil.rmtree(copy / "data")
    assert bench(*RUN, results=copy).exit_code == 0
    assert record_bytes(copy) == before


def test_predictions_beside_a_record_give_its_numbers(finished):
    results, document, _ = finished
    rows = {r["record"][0]: r for r in document["rows"]}
    for record in records(results / "records"):
        arrays = record.predictions()
        recall = [np.mean(arrays["attack"][:, arrays["label"] == k].argmax(2) == k) for k in range(4)]
        assert rows[record.data["key"]]["leakage"] == pytest.approx(np.mean(recall))
        accuracy = np.mean(arrays["action_retrained"].argmax(2) == arrays["action_label"])
        assert rows[record.data["key"]]["action_retrained"] == pytest.approx(accuracy)
        assert len(set(arrays["clip"])) == len(arrays["clip"]) == len(arrays["label"])
        assert record.manifest()["packages"]["torch"]


def test_table_and_figure_are_rebuilt_from_records(finished, tmp_path):
    results, document, _ = finished
    outcome = bench("table", "--json", "-", results=results)
    assert outcome.exit_code == 0
    assert json.loads(outcome.stdout)["rows"] == document["rows"]
    assert "semi-informed" in bench("table", "--dataset", "synthetic", results=results).output
    png = tmp_path / "figure.png"
    assert bench("plot", "pareto", "--out", str(png), results=results).exit_code == 0
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    nothing = bench("table", "--preset", "paper", results=results)
    assert nothing.exit_code == 2
    assert "no records in" in nothing.output


def test_two_methods_are_compared(finished):
    folder, document, _ = finished
    told = bench("table", "--compare", "null", "identity", results=folder)
    assert told.exit_code == 0, told.output
    by = {(r["anonymizer"], r["attacker"], r["threat"]): r for r in document["rows"]}
    key = ("bones-lda", "semi-informed")
    expected = by[("null", *key)]["leakage_normalised"] - by[("identity", *key)]["leakage_normalised"]
    assert re.search(rf"leakage +bones-lda +semi-informed +{re.escape(format(expected, '+.2f'))} \[", told.output)
    assert (
        "null against identity: no sure difference in leakage to the worst attacker" in told.output
    )  # of four people nothing is
    turned = bench("table", "--compare", "identity", "null", results=folder)
    assert re.search(rf"leakage +bones-lda +semi-informed +{re.escape(format(-expected, '+.2f'))} \[", turned.output)
    same = bench("table", "--compare", "identity", "identity", results=folder)
    assert "no sure difference in leakage to the worst attacker; no sure difference in use" in same.output
    wrong = bench("table", "--compare", "identity", "gaus", results=folder)
    assert wrong.exit_code == 2
    assert (
        "identity and gaus were nowhere measured with the same attacker; measured: identity, null, gauss:std=0.1" in wrong.output
    )


def test_a_failing_pair_does_not_stop_the_others(finished, tmp_path, monkeypatch):
    from anonymizers.noise import GaussianNoise

    def fails(self, batch, state):
        raise RuntimeError("out of ideas")

    monkeypatch.setattr(GaussianNoise, "transform", fails)
    outcome = bench(*RUN, "--json", str(tmp_path / "rows.json"), results=tmp_path)
    assert outcome.exit_code == 1
    document = json.loads((tmp_path / "rows.json").read_text())
    assert len(document["rows"]) == 10
    assert len(document["failed"]) == 4
    assert document["failed"][0]["error"] == "RuntimeError: out of ideas"
    assert document["failed"][0]["anonymizer"] == "gauss:std=0.1"
    assert "FAILED gauss:std=0.1 x bones-lda, ignorant, seed 0: RuntimeError: out of ideas" in outcome.output
    monkeypatch.undo()
    # The rest is done when it is mended (under the module's budget again).
    shrink_budget(monkeypatch)
    outcome = bench(*RUN, results=tmp_path)
    assert outcome.exit_code == 0
    assert "4 of 14 records computed now" in outcome.output
    assert record_bytes(tmp_path) == record_bytes(finished[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--anonymizer", "identiti"], "no anonymizer named 'identiti'; did you mean identity?"),
        (["--anonymizer", "gauss:sdt=1"], "anonymizer 'gauss' has no parameter 'sdt'; did you mean std?"),
        (["--anonymizer", "gauss:std=inf"], "anonymizer 'gauss': std must be a number, got inf"),
        (["--attacker", "shiftgcn-reid:backbone=shiftgcn"], "no backbone named 'shiftgcn'; did you mean shift-gcn"),
        (["--anonymizer", "gauss:std=-1"], "anonymizer 'gauss': std must be at least 0 m, got -1"),
        (["--attacker", "bone-lda"], "no attacker named 'bone-lda'; did you mean bones-lda?"),
        (["--attacker", "bones-lda:target=age"], "cannot test 'age'; it can test"),
        (
            ["--threat", "informed"],
            "no threat level named 'informed'; there are ignorant, lazy-informed",
        ),
        (["--preset", "fast"], "no preset named 'fast'; there are quick, standard, paper"),
        (["--protocol", "xview"], "synthetic has no protocol 'xview'; it has xrep/1"),
        (["--dataset", "syntetic"], "no data set named 'syntetic'; did you mean synthetic?"),
        (["--dataset", "ntu60:gender_csv=g.csv"], "parameters belong to `bench data prepare`; name ntu60 alone here"),
        (["--dataset", "utd-mhad"], "run: bench data prepare utd-mhad --source PATH"),
        (["--device", "cuda:7"], "device 'cuda:7' is not there"),
        (["--device", "gpu"], "no device named 'gpu'; use auto, cpu, cuda or cuda:N"),
        (["--seeds", "0"], "seeds must be at least 1, got 0"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2_and_leaves_nothing(arguments, message, tmp_path, monkeypatch):
    monkeypatch.delenv("BENCH_DATA", raising=False)
    outcome = bench("run", "--dataset", DATA, *arguments, results=tmp_path)
    assert outcome.exit_code == 2
    assert message in outcome.output
    assert len(outcome.output.strip().splitlines()) == 1
    assert not (tmp_path / "records").exists()
    assert not (tmp_path / "stages").exists()
