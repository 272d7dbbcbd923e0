"""Submissions: manifest, template, check, what holds no code, states, evaluation."""

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.data.prepare import open_or_prepare
from bench.files import UserError, write_json
from bench.grid import Grid
from bench.occupied import at_work
from bench.plan import choose_protocol
from bench.protocols import instantiate
from bench.records import records
from bench.registry import DATASETS
from bench.report.board import load_boards
from bench.specs import parse_spec
from bench.submission.evaluate import Budget, evaluate
from bench.submission.isolation import probe
from bench.submission.manifest import ManifestError, check_files, copy_files, read_manifest, seal
from bench.submission.prepared import read_scores
from bench.submission.session import close_all
from bench.submission.states import entries, evaluating, find, off_the_board, receive
from bench.submission.template import KINDS, new_submission
from bench.summary import set_aside
from tests.bench.hostile import write_method
from tests.bench.test_isolation import _silent, checked, wrong
from tests.tiny import HERE, bench, shrink_budget

DATA = "synthetic:people=6,motions=3,cameras=1"
GOOD = """
schema = 1
kind = "code"
name = "acme-blur"
version = "1.0"
authors = ["A. Uthor"]
licence = "MIT"
[code]
source = "src"
target = "acme:Blur"
"""


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


def manifest(folder: Path, text: str = GOOD) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "submission.toml").write_text(text, encoding="utf-8")
    return folder


# Manifest


def test_a_whole_manifest_is_read(tmp_path):
    found = read_manifest(manifest(tmp_path))
    assert (found.provider, found.code.target, found.seeds) == ("acme-blur 1.0", "acme:Blur", [0, 1, 2])


def test_everything_that_is_wrong_is_told_at_once(tmp_path):
    text = GOOD.replace("schema = 1", "schema = 7").replace('"acme-blur"', '"Acme Blur"').replace("licence", "license")
    text = text.replace('"acme:Blur"', '"acme.Blur"')
    with pytest.raises(ManifestError) as caught:
        read_manifest(manifest(tmp_path, text))
    assert {where for where, _, _ in caught.value.problems} == {"schema", "name", "licence", "license", "code.target"}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('kind = "code"', 'kind = "weights"', r"needs the table \[weights\]"),
        ("[code]", "[data]", "data.folder"),
        ("schema = 1", "schema = 1\nseeds = [1, 1]", "a seed is given twice"),
        ("schema = 1", "schema = 1\nseeds = [true]", "seeds.0"),
        ("schema = 1", "schema = 1\nfiles = [{path='a', sha256='x'}]", "files.0.sha256"),
        ("schema = 1", "schema = ", "it is no TOML"),
        ('source = "src"', 'source = "../other"', "code.source"),
        ('source = "src"', 'source = "/etc"', "code.source"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_place(tmp_path, old, new, told):
    with pytest.raises(ManifestError, match=told):
        read_manifest(manifest(tmp_path, GOOD.replace(old, new)))


def test_no_manifest_and_a_link_for_one_are_refused(tmp_path):
    with pytest.raises(ManifestError, match="bench submit new"):
        read_manifest(tmp_path)
    (tmp_path / "real").write_text(GOOD)
    (tmp_path / "submission.toml").symlink_to(tmp_path / "real")
    with pytest.raises(ManifestError, match="a link"):
        read_manifest(tmp_path)


def test_files_are_what_the_manifest_says(tmp_path):
    folder = write_method(tmp_path / "m", "pass")
    assert check_files(folder, read_manifest(folder)) == []
    (folder / "src" / "method.py").write_text("changed")
    (folder / "extra.txt").write_text("x")
    found = check_files(folder, read_manifest(folder))
    assert [where for where, _, _ in found] == ["extra.txt", "src/method.py"]
    (folder / "src" / "method.py").unlink()
    assert ("src/method.py", "it is listed but not there") in [f[:2] for f in check_files(folder, read_manifest(folder))]
    assert seal(folder) == 1
    assert check_files(folder, read_manifest(folder)) == []


def test_what_tools_leave_behind_is_no_part_of_a_submission(tmp_path):
    """A results folder of `bench`, as `bench submit check .` makes one, and what pip builds; one only named so is."""
    folder = write_method(tmp_path / "m", "pass")
    with at_work(folder / "results"):
        (folder / "results" / "clips.npy").write_text("real people")
    for name in ("build/lib/method.py", "src/method.egg-info/PKG-INFO", "src/__pycache__/method.pyc"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("x")
    assert check_files(folder, read_manifest(folder)) == []
    assert seal(folder) == 1
    copy_files(folder, tmp_path / "copy")
    assert not (tmp_path / "copy" / "results").exists()
    (folder / "src" / "results").mkdir()
    (folder / "src" / "results" / "table.txt").write_text("x")
    assert [where for where, _, _ in check_files(folder, read_manifest(folder))] == ["src/results/table.txt"]


@pytest.mark.parametrize("to", ["/etc/passwd", "../../secret", "src"])
def test_links_are_refused_and_never_followed(tmp_path, results, to):
    (tmp_path / "secret").write_text("s3cret")
    folder = write_method(tmp_path / "m", "pass")
    (folder / "link").symlink_to(to)
    report = checked(folder, results)
    assert wrong(report) == {"files"}
    assert "symbolic link" in report.findings[0].what
    with pytest.raises(UserError, match="link"):
        seal(folder)
    entry = receive(folder, tmp_path / "results")
    assert not (entry.files / "link").exists()


def test_a_copy_that_follows_links_would_take_the_secret_in(tmp_path):
    """Positive control."""
    (tmp_path / "secret").write_text("s3cret")
    folder = write_method(tmp_path / "m", "pass")
    (folder / "link").symlink_to("../secret")
    shutil.copytree(folder, tmp_path / "copy")
    assert (tmp_path / "copy" / "link").read_text() == "s3cret"


def test_sealing_keeps_what_authors_wrote(tmp_path):
    folder = manifest(tmp_path, GOOD + "# a remark\n")
    (folder / "a.txt").write_text("a")
    seal(folder)
    assert "# a remark" in (folder / "submission.toml").read_text()
    assert [file.path for file in read_manifest(folder).files] == ["a.txt"]


def test_the_name_of_a_built_in_method_is_taken(tmp_path, results):
    folder = write_method(tmp_path / "m", "pass")
    path = folder / "submission.toml"
    path.write_text(path.read_text().replace('"hostile"', '"gauss"'))
    assert wrong(checked(folder, results)) == {"name"}


# Template


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_project_passes_its_own_check(tmp_path, results, kind, level):
    folder = new_submission(tmp_path / "my-method", kind, results)
    report = checked(folder, results, level)
    assert report.good, report.findings
    assert report.smoke


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


# States


def test_a_version_is_received_once(tmp_path):
    folder = write_method(tmp_path / "m", "pass")
    first = receive(folder, tmp_path / "results")
    assert receive(folder, tmp_path / "results").data == first.data
    assert (first.state, [e.provider for e in entries(tmp_path / "results")]) == ("received", ["hostile 1"])
    (folder / "more.txt").write_text("x")
    seal(folder)
    with pytest.raises(UserError, match="raise its version"):
        receive(folder, tmp_path / "results")


def test_an_edit_that_was_not_sealed_is_not_what_was_received(tmp_path):
    """The manifest is the same: what was measured of the old files must not pass for a measurement of the new ones."""
    folder = write_method(tmp_path / "m", "pass")
    receive(folder, tmp_path / "results")
    (code,) = (path for path in folder.rglob("*.py") if "batch" in path.read_text())
    code.write_text(code.read_text() + "# changed\n")
    with pytest.raises(UserError, match=r"was received before, and .* sha256 .* raise its version"):
        receive(folder, tmp_path / "results")


def test_states_follow_each_other_as_declared_and_keep_their_history(tmp_path):
    results = tmp_path / "results"
    entry = receive(write_method(tmp_path / "m", "pass"), results)
    with pytest.raises(UserError, match="cannot become listed"):
        entry.moved("listed")
    for state in ("checked", "evaluating", "listed"):
        entry = entry.moved(state)
    assert off_the_board(results) == {}
    entry = find(results, "hostile")[0].moved("withdrawn", "by its authors")
    assert [step["state"] for step in entry.data["history"]] == ["received", "checked", "evaluating", "listed", "withdrawn"]
    assert off_the_board(results) == {entry.data["identity"]: "withdrawn: by its authors"}
    with pytest.raises(UserError, match="there are hostile"):
        find(results, "other")


@pytest.mark.parametrize("ends_by", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("before", ["listed", "listed-with-flags"])
def test_what_is_listed_stays_so_if_an_evaluation_comes_to_no_end(tmp_path, before, ends_by):
    entry = receive(write_method(tmp_path / "m", "pass"), tmp_path / "results").moved("checked")
    with evaluating(entry, "namespace") as entry:
        entry = entry.moved(before, "why", noted=["two-faced"])
    with pytest.raises(ends_by), evaluating(entry, "process") as again:
        again.moved("evaluating", noted=[])
        raise ends_by
    (now,) = entries(tmp_path / "results")
    assert (now.state, now.reason, now.data["isolation"], now.data["noted"]) == (before, "why", "namespace", ["two-faced"])


def test_what_was_never_listed_is_not_after_an_evaluation_that_comes_to_no_end(tmp_path):
    entry = receive(write_method(tmp_path / "m", "pass"), tmp_path / "results").moved("checked")
    with pytest.raises(KeyboardInterrupt), evaluating(entry, "namespace"):
        raise KeyboardInterrupt
    assert [e.state for e in entries(tmp_path / "results")] == ["evaluating"]


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
    again = run("submit", "evaluate", str(tmp_path / "acme-attacker"), *small, results=results)
    assert "0 of" in again.output
    assert again.exit_code == 0
    run("submit", "status", "acme-attacker", "--withdraw", results=results)
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


def test_a_broken_state_file_is_no_entry(tmp_path):
    folder = tmp_path / "submissions" / "a" / "1"
    folder.mkdir(parents=True)
    write_json(folder / "other.json", {})
    assert list(entries(tmp_path)) == []
    shutil.rmtree(folder)
