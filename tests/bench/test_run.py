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
from bench.records import PooledRecord, git_commit, newest, pool_folds, records
from tests.tiny import DATA, HERE, RUN, bench, record_bytes, shrink_budget, stages


@pytest.fixture(autouse=True)
def tiny_budget(monkeypatch):
    shrink_budget(monkeypatch)


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
        absent |= {f"leakage_of_10_clips{end}" for end in ("", "_low", "_high")}
        absent |= {f"singled_out_people{end}" for end in ("", "_low", "_high")}  # nor can anybody be found ten times too often
        absent |= set() if git_commit() else {"commit"}
        # Actions are tested on two people: of so few no interval is stated.
        of_two = ("action", "utility", "transfer", "frechet", *MEASURES)
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
        assert row.get("commit", "") == git_commit()
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
    assert grid["withheld"] == {"gauss:std=0.1": ["weak-attacker"]}
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
    assert identity["frechet"] == pytest.approx(0, abs=1e-6)
    still = by["null", "bones-lda", "semi-informed"]
    assert min(noisy["frechet"], still["frechet"]) > 0
    assert "frechet_low" not in noisy  # the action is tested on too few people to leave one out
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
    assert "14 records are left out, of older code" in outcome.stderr
    from bench.summary import measure_all

    both = measure_all(records(copy / "records"))
    assert len(both) == 28
    assert {len(m.records) for m in both} == {1}
    kept, older = newest(records(copy / "records"))
    assert older == 14
    assert all(record.path.name.startswith("new") for record in kept)


@pytest.mark.parametrize(("side", "named"), [("attacker", "bones-lda"), ("anonymizer", "gauss:std=0.1")])
def test_of_two_methods_of_one_name_one_stands_in_the_table(finished, tmp_path, side, named):
    """As of a plugin and a submission, whatever versions they say of themselves: that which met most counts everywhere."""
    other = {"attacker": "anonymizer", "anonymizer": "attacker"}[side]
    copy = tmp_path / "copy"
    shutil.copytree(finished[0] / "records", copy / "records")
    of_it = [record for record in records(copy / "records") if record.data["names"][side] == named]
    once = of_it[0].data["names"][other]
    for record in (record for record in of_it if record.data["names"][other] == once):
        for number in range(5):  # whichever digest is larger
            parameters = {**record.data[side]["parameters"], "submission": f"{number}", "code": 10**9}
            change = {"parameters": parameters, "provider": "strangers 9.9", "code": 10**9}
            data = {**record.data, side: {**record.data[side], **change}}
            record.path.with_name(f"other{number}{record.path.name}").write_text(json.dumps(data))
            shutil.copy(record.path.with_suffix(".npz"), record.path.with_name(f"other{number}{record.path.stem}.npz"))
    everything = list(records(copy / "records"))
    kept, left_out = newest(everything)
    assert left_out == len(everything) - 14 > 0
    assert not any(record.path.name.startswith("other") for record in kept)
    kept, _ = newest(everything, lambda data: data[side]["parameters"].get("submission", "3") == "3")
    assert len(kept) == 14
    kept, _ = newest(everything, lambda data: data["names"][side] != named or data[side]["parameters"].get("submission") == "3")
    assert {r.path.name.startswith("other3") for r in kept if r.data["names"][side] == named} == {True}


def test_a_package_of_another_version_is_the_same_method_and_its_last_record_counts(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished[0] / "records", copy / "records")
    record = next(r for r in records(copy / "records") if r.data["names"]["anonymizer"] == "gauss:std=0.1")
    for version, day in (("2.0", "2026-01-01"), ("2.1", "2026-01-02")):
        data = {**record.data, "anonymizer": {**record.data["anonymizer"], "provider": f"acme {version}"}}
        path = record.path.with_name(f"v{version[-1]}{record.path.name}")
        path.write_text(json.dumps(data))
        shutil.copy(record.path.with_suffix(".npz"), path.with_suffix(".npz"))
        path.with_name(f"{path.stem}.manifest.json").write_text(json.dumps({"finished": day}))
    versions = [r for r in records(copy / "records") if r.path.name[0] == "v"]
    assert len(versions) == 2
    for order in (versions, versions[::-1]):
        (kept,), _ = newest(order)
        assert kept.data["anonymizer"]["provider"] == "acme 2.1"


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
    pooled = next(r for r in pool_folds(records(tmp_path / "records")) if isinstance(r, PooledRecord))
    of_folds = [fold.predictions()["frechet"] for fold in pooled.folds]
    found = pooled.predictions()["frechet"]
    assert found.shape[1] == 1 + sum(of.shape[1] - 1 for of in of_folds)
    assert found[:, 0] == pytest.approx(np.mean([of[:, 0] for of in of_folds], axis=0))
    # Without the first person of the first fold, that fold has another distance, and the second the same.
    assert found[:, 1] == pytest.approx((of_folds[0][:, 1] + of_folds[1][:, 0]) / 2)
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
def test_mlflow_shows_the_table_the_figure_and_a_run_a_record(finished, copied):
    import mlflow

    from bench.tracking import sync, tracking_uri

    results, document = copied, finished[1]
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
def test_a_tracking_server_that_is_gone_costs_no_record(copied, monkeypatch):
    results = copied
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    told = bench(*[argument for argument in RUN if argument != "--no-mlflow"], results=results)
    assert told.exit_code == 0
    assert "MLflow could not be written" in told.output
    assert "`bench mlflow sync` writes what is missing" in told.output


def test_the_same_command_again_computes_nothing(finished, copied):
    results, document = copied, finished[1]
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
    assert "nothing of the name 'gaus' was measured; there are identity, null, gauss:std=0.1" in wrong.output


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
