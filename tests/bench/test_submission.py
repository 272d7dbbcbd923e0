"""Submissions: template, check, what holds no code, evaluation."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.data.prepare import open_or_prepare
from bench.files import UserError, digest
from bench.grid import Grid
from bench.plan import choose_protocol
from bench.protocols import instantiate
from bench.records import records
from bench.registry import DATASETS
from bench.report.board import load_boards
from bench.specs import parse_spec
from bench.submission.evaluate import Budget, evaluate
from bench.submission.isolation import IsolationError, probe
from bench.submission.manifest import seal
from bench.submission.prepared import read_scores
from bench.submission.session import close_all
from bench.submission.source import received
from bench.submission.states import entries, find, receive, secret_of
from bench.submission.template import KINDS, new_submission
from bench.summary import set_aside
from tests.bench.hostile import write_method
from tests.bench.test_isolation import _silent, checked, wrong
from tests.bench.test_manifest import GOOD, manifest
from tests.tiny import HERE, bench, shrink_budget

DATA = "synthetic:people=6,motions=3,cameras=1"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture(autouse=True)
def ended():
    yield
    close_all()


@pytest.fixture
def level() -> str:
    if problem := probe("namespace"):
        pytest.skip(f"isolation namespace does not work here: {problem}")
    return "namespace"


@pytest.mark.parametrize("to", ["/etc/passwd", "../secret", "src"])
def test_links_are_refused_and_never_followed(tmp_path, results, to):
    (tmp_path / "secret").write_text("s3cret")
    folder = write_method(tmp_path / "m", "pass")
    (folder / "link").symlink_to(to)
    assert (folder / "link").stat().st_size, "whoever follows it finds something"
    report = checked(folder, results)
    assert wrong(report) == {"files"}
    assert "symbolic link" in report.findings[0].what
    with pytest.raises(UserError, match="link"):
        seal(folder)
    entry = receive(folder, tmp_path / "results")
    assert not (entry.files / "link").exists()


def test_the_name_of_a_built_in_method_is_taken(tmp_path, results):
    folder = write_method(tmp_path / "m", "pass")
    path = folder / "submission.toml"
    path.write_text(path.read_text().replace('"hostile"', '"gauss"'))
    assert wrong(checked(folder, results)) == {"name"}


def test_without_isolation_the_check_still_tells_what_is_wrong_with_the_files(tmp_path, results, monkeypatch):
    def refuse(level, *, trust):
        raise IsolationError("bubblewrap is not installed")

    monkeypatch.setattr("bench.submission.isolation.choose_level", refuse)
    folder = write_method(tmp_path / "m", "pass")
    said = run("submit", "check", str(folder), results=results)
    assert (said.exit_code, "its code was not run" in said.output) == (1, True)
    (folder / "src" / "method.py").write_text("changed = True\n")
    said = run("submit", "check", str(folder), results=results)
    assert said.exit_code == 1
    assert "sha256" in said.output
    assert "bubblewrap is not installed" in said.stderr


# Template


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_project_passes_its_own_check(tmp_path, results, kind, level):
    folder = new_submission(tmp_path / "my-method", kind, results)
    report = checked(folder, results, level)
    assert report.good, report.findings
    assert report.smoke
    if kind in ("anonymizer", "attacker"):
        assert report.findings == []
        assert {"contract", "determinism", "batch independence", "clock", "parameters"} <= set(report.passed)


def test_a_new_project_is_never_written_over_another(tmp_path, results):
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="there already"):
        new_submission(tmp_path / "there", "anonymizer", results)
    with pytest.raises(UserError, match="lower-case"):
        new_submission(tmp_path / "My_Method", "anonymizer", results)


# Without code


def test_clips_must_be_those_of_the_data_set(tmp_path, results):
    folder = new_submission(tmp_path / "my-clips", "data", results)
    frames = np.load(folder / "clips" / "frames.npy")
    np.save(folder / "clips" / "frames.npy", np.where(np.arange(len(frames))[:, None, None] == 3, np.nan, frames))
    seal(folder)
    assert any("not finite" in finding.what for finding in checked(folder, results).findings)
    path = folder / "submission.toml"
    path.write_text(path.read_text().replace(DATA, "synthetic:people=8,motions=3,cameras=1"))
    assert any("clips are missing" in finding.what for finding in checked(folder, results).findings)


def test_weights_must_be_for_a_known_method(tmp_path, results):
    folder = new_submission(tmp_path / "my-weights", "weights", results)
    stated = folder / "fitted" / "anonymizer.json"
    stated.write_text(stated.read_text().replace("mean-skeleton", "mean-skeletons"))
    seal(folder)
    report = checked(folder, results)
    assert wrong(report) == {"contract"}
    assert "mean-skeleton" in report.findings[0].what


def scores_of(folder: Path, results: Path, right: bool = True, against: str = "identity") -> Path:
    """A submission of scores against an anonymizer: all right, or all the same."""
    data = parse_spec(DATA, DATASETS)
    store = open_or_prepare(data, results)
    part = instantiate(choose_protocol(data, None), "subject", store.labels, DATA)
    answers = np.eye(len(part.classes), dtype=np.float32)[part.labels[part.test] if right else 0 * part.test]
    folder.mkdir()
    names = store.labels["clip"].to_numpy(dtype=str)[part.test]
    np.savez(folder / "scores.npz", clip=names, classes=np.array([str(c) for c in part.classes]), scores=answers)
    text = GOOD.partition("[code]")[0].replace('"code"', '"scores"') + f'dataset = "{DATA}"\n'
    text += f'[scores]\nfile = "scores.npz"\nanonymizer = "{against}"\ntarget = "subject"\n'
    manifest(folder, text)
    seal(folder)
    return folder


@pytest.mark.parametrize(("right", "leakage", "against"), [(True, 1.0, "null"), (False, 0.0, "identity")])
def test_scores_are_checked_from_labels_alone_and_count_for_nothing(tmp_path, results, right, leakage, against, monkeypatch):
    """They are a claim: whoever has the labels can write what is right, even of clips that hold nothing."""
    from bench.cli.options import make_where

    shrink_budget(monkeypatch)
    where = make_where(
        {"device": "cpu", "executor": "serial", "workers": None, "address": None, "time_limit": None, "memory_limit": None}
    )
    folder = scores_of(tmp_path / "proof", results, right, against)
    done = evaluate(folder, None, Budget(), tmp_path / "results", where, _silent, "a test")
    row = next(m for m in done.measured if m.first["names"]["attacker"] == "acme-blur")
    assert row.normalised.value == pytest.approx(leakage)
    assert done.entry.data["isolation"] == "no code"
    assert row.flags == ("unproven",)
    assert (done.entry.state, done.entry.reason) == ("listed-with-flags", "unproven")
    grid = Grid.of(done.measured)
    assert not grid.points
    assert not any("acme-blur" in line for line in grid.failed_controls)
    if right:  # had it been an attack: of all others it would have ended the trust, of a stranger it ends that in himself
        counted = replace(row, records=tuple(replace(r, data={**r.data, "control": False}) for r in row.records))
        assert set_aside("acme-blur", [counted])
        assert not Grid.of([counted]).failed_controls
        assert not Grid.of([counted]).points
        plugin = {**row.first["attacker"], "parameters": {}}
        own = replace(counted, records=tuple(replace(r, data={**r.data, "attacker": plugin}) for r in counted.records))
        assert not set_aside("acme-blur", [own])
        assert any("acme-blur" in line for line in Grid.of([own]).failed_controls)


@pytest.mark.parametrize("poison", ["objects", "bomb", "cut", "twice", "nan", "missing", "text"])
def test_poisoned_scores_are_refused(tmp_path, poison):
    path = tmp_path / "scores.npz"
    good = {"clip": np.array(["a", "b"]), "classes": np.array(["1", "2"]), "scores": np.eye(2, dtype=np.float32)}
    changes = {
        "objects": {"clip": np.array([{"a": 1}, None], dtype=object)},
        "twice": {"clip": np.array(["a", "a"])},
        "nan": {"scores": np.full((2, 2), np.nan, dtype=np.float32)},
        "text": {"scores": np.array([["x", "y"], ["z", "w"]])},
    }
    np.savez_compressed(path, **{**good, **changes.get(poison, {})})
    if poison == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    if poison == "bomb":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("clip.npy", "w") as member:
            for _ in range(300):
                member.write(bytes(2**20))
    if poison == "missing":
        np.savez(path, clip=good["clip"])
    with pytest.raises(UserError, match="scores"):
        read_scores(path)


def test_a_poisoned_file_runs_where_pickles_are_read(tmp_path):
    """Positive control: the same file does harm to whoever trusts it."""
    path, mark = tmp_path / "scores.npz", tmp_path / "ran"
    np.savez(path, clip=np.array([_Poison(mark), None], dtype=object), classes=np.array(["1"]), scores=np.ones((2, 1)))
    with pytest.raises(UserError, match="scores"):
        read_scores(path)
    assert not mark.exists()
    with np.load(path, allow_pickle=True) as arrays:
        assert arrays["clip"].shape == (2,)
    assert mark.exists()


class _Poison:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path):
        self._mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (self._mark,)


def test_whole_scores_are_read(tmp_path):
    path = tmp_path / "scores.npz"
    np.savez(path, clip=np.array(["a"]), classes=np.array(["1", "2"]), scores=np.ones((1, 2), dtype=np.float32))
    assert read_scores(path)["scores"].shape == (1, 2)


# Evaluation


def run(*arguments: str, results: Path):
    return bench(*arguments, results=results)


@pytest.mark.parametrize(
    ("kind", "asked", "told"),
    [
        ("weights", ("--anonymizer", "gauss"), "--anonymizer is what an attacker is tried on"),
        ("weights", ("--attacker", "bones-ldda"), "did you mean bones-lda"),
        ("weights", ("--protocol", "xsub"), "xsub"),
        ("weights", ("--preset", "fast"), "fast"),
        ("weights", ("--threat", "semi"), "semi-informed"),
        ("attacker-weights", ("--attacker", "bones-lda"), "--attacker is the panel that an anonymizer meets"),
        ("attacker-weights", ("--anonymizer", "gaus"), "did you mean gauss"),
        ("attacker-weights", ("--dataset", "utd"), "no data set named 'utd'"),
    ],
)
def test_a_mistake_in_the_command_is_told_before_anything_is_received(tmp_path, kind, asked, told, results):
    folder = new_submission(tmp_path / "mine", kind, results)
    done = run("submit", "evaluate", str(folder), *asked, *HERE, results=tmp_path / "results")
    assert done.exit_code == 2, done.output
    assert told in done.output
    assert not (tmp_path / "results" / "submissions").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_strangers_anonymizer_and_attacker_are_evaluated_in_isolation(tmp_path, monkeypatch, level):
    shrink_budget(monkeypatch)
    results = tmp_path / "results"
    for name in ("anonymizer", "attacker"):
        new_submission(tmp_path / f"acme-{name}", name, results)
    path = tmp_path / "acme-anonymizer" / "submission.toml"
    claims = f'[[claims]]\ndataset = "{DATA}"\nmetric = "leakage"\nvalue = -0.9\n'
    path.write_text(path.read_text() + claims)
    small = ["--dataset", DATA, "--seeds", "1", "--threat", "semi-informed", "--no-mlflow", *HERE]
    done = run("submit", "evaluate", str(path.parent), "--attacker", "bones-lda", *small, results=results)
    assert done.exit_code == 0, done.output
    assert "NOT REPRODUCED" in done.output
    assert "listed-with-flags" in done.output
    assert "claim-not-reproduced" in done.output
    done = run("submit", "evaluate", str(tmp_path / "acme-attacker"), *small, "--json", str(tmp_path / "rows"), results=results)
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "rows").read_text())["rows"]
    met = {row["anonymizer"] for row in rows if row["attacker"] == "acme-attacker"}
    assert met == {"identity", "null", "acme-anonymizer"}, "an attacker must meet all that were measured before"
    assert {row["provider"] for row in rows if row["anonymizer"] == "acme-anonymizer"} == {
        "acme-anonymizer 0.1; acme-attacker 0.1"
    }
    assert run("leaderboard", "--html", str(tmp_path / "pages"), results=results).exit_code == 0
    page = (tmp_path / "pages" / "method-0-acme-anonymizer.html").read_text()
    for what in ("By acme-anonymizer 0.1", "kept apart: namespace", "acme-attacker 0.1", "from the release that was measured"):
        assert what in page, what
    said = run("leaderboard", "--explain", "acme-anonymizer", results=results).output
    assert "listed-with-flags" in said
    assert "worst semi-informed attacker" in said
    states = run("submit", "status", results=results).output
    assert "acme-attacker 0.1" in states
    assert "namespace" in states
    audited = run("audit", *_keys(results, "acme-anonymizer", "acme-attacker"), *HERE, results=results)
    assert audited.output.count("equal to the bit") == 1, audited.output
    secret = secret_of(results)
    assert all(received(entry, level, results, trust=False).value.secret == secret for entry in entries(results))
    stated = [record.data[side]["parameters"] for record in records(results / "records") for side in ("anonymizer", "attacker")]
    assert {of["secret"] for of in stated if "submission" in of} == {digest(secret)}
    told = [path for path in results.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert told == [results / "submissions" / ".secret"]
    again = run("submit", "evaluate", str(tmp_path / "acme-attacker"), *small, results=results)
    assert "0 of" in again.output
    assert again.exit_code == 0
    again = run("submit", "evaluate", str(path.parent), "--attacker", "bones-lda", *small, results=results)
    assert "incomplete-panel" not in again.output, "what the attacker read of it before counts"
    (record,) = _keys(results, "acme-anonymizer", "acme-attacker")
    told = ["submit", "status", "acme-attacker", "--withdraw", "--because", "it is not honest"]
    assert "it is not honest" in run(*told, results=results).output
    said = run("leaderboard", "--explain", record, results=results).output
    assert "it is left out: acme-attacker 0.1 is withdrawn (it is not honest)." in said
    assert "acme-attacker" not in run("leaderboard", "--json", "-", results=results).stdout
    assert "withdrawn" in run("submit", "status", results=results).output


def _keys(results, anonymizer, attacker):
    """Records of a pair."""
    wanted = {"anonymizer": anonymizer, "attacker": attacker}
    return [record.data["key"] for record in records(results / "records") if record.data["names"] == wanted]


@pytest.mark.slow
def test_clips_that_were_released_elsewhere_have_no_rank(tmp_path, monkeypatch):
    """Nor has what an evaluation flagged and no record shows; the controls beside it are not touched by that."""
    shrink_budget(monkeypatch)
    results = tmp_path / "results"
    folder = new_submission(tmp_path / "my-clips", "data", results)
    small = ["--seeds", "1", "--threat", "semi-informed", "--attacker", "bones-lda", "--no-mlflow", *HERE]
    done = run("submit", "evaluate", str(folder), *small, results=results)
    assert done.exit_code == 0, done.output
    entry = find(results, "my-clips")[0]
    assert (entry.state, "fixed-release" in entry.reason) == ("listed-with-flags", True)
    assert entry.data["noted"] == []
    entry.moved("evaluating", noted=["two-faced"]).moved("listed-with-flags", "two-faced")
    withheld = {p.anonymizer: p.withheld for p in load_boards(results, None, None, None).boards[0].grid.points}
    assert {"fixed-release", "two-faced"} <= set(withheld["my-clips"])
    assert not {"fixed-release", "two-faced"} & set(withheld["identity"])


@pytest.mark.slow
def test_code_that_behaves_only_while_it_is_checked_is_rejected(tmp_path, monkeypatch, level):
    """It tells the evaluated clips, of another number of people, from those of the check by their first coordinate."""
    shrink_budget(monkeypatch)
    results = tmp_path / "results"
    body = "if len(batch.clips) > 30: return batch.clips * (1 + 0.1 * batch.clips.std())"
    folder = write_method(tmp_path / "m", body)
    from tests.bench.test_isolation import checked as check_here

    assert "batch independence" not in wrong(check_here(folder, results))
    data = "synthetic:people=12,motions=6,cameras=1"
    small = ["--dataset", data, "--seeds", "1", "--threat", "semi-informed", "--attacker", "bones-lda", "--no-mlflow", *HERE]
    done = run("submit", "evaluate", str(folder), *small, results=results)
    assert done.exit_code == 1
    assert "rejected" in done.output
    assert "is not the clip that was evaluated" in done.output


def test_a_rejected_submission_says_why(tmp_path, level):
    folder = write_method(tmp_path / "m", "return batch.clips[:, :, :-1]")
    done = run("submit", "evaluate", str(folder), "--no-mlflow", *HERE, results=tmp_path / "results")
    assert done.exit_code == 1
    assert "hostile 1: rejected (contract" in done.output
    said = run("leaderboard", "--explain", "hostile", results=tmp_path / "results").output
    assert "hostile 1: rejected (contract" in said
    assert "returned clips of shape" in done.output


def test_mistakes_on_the_command_line_are_told_in_one_line(tmp_path):
    for arguments, told in (
        (("check", str(tmp_path)), "bench submit new"),
        (("status", "nobody"), "no submission 'nobody'"),
        (("evaluate", str(tmp_path)), "bench submit new"),
    ):
        done = run("submit", *arguments, results=tmp_path / "results")
        assert done.exit_code == (1 if arguments[0] == "check" else 2), done.output  # a check that finds something is no mistake
        assert told in done.output, done.output
