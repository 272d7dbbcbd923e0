"""Submissions: what was received, and what becomes of it."""

import shutil

import pytest

from bench.files import UserError, write_json
from bench.submission.manifest import seal
from bench.submission.states import entries, evaluating, find, off_the_board, receive
from tests.bench.hostile import write_method


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


def test_a_broken_state_file_is_no_entry(tmp_path):
    folder = tmp_path / "submissions" / "a" / "1"
    folder.mkdir(parents=True)
    write_json(folder / "other.json", {})
    assert list(entries(tmp_path)) == []
    shutil.rmtree(folder)
