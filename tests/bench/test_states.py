"""Submissions: what was received, and what becomes of it."""

import os
import re
import shutil

import pytest

from bench.files import UserError, digest, write_json
from bench.submission.evaluate import withdraw
from bench.submission.manifest import seal
from bench.submission.states import (
    Entry,
    entries,
    find,
    hidden_because,
    on_the_board,
    receive,
    refuse_takeover,
    secret_of,
    supersede,
)
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
    assert hidden_because(results)(record(entry, "a", None, level=None)) == ""
    entry = find(results, "hostile")[0].moved("withdrawn", "by its authors")
    assert [step["state"] for step in entry.data["history"]] == ["received", "checked", "evaluating", "listed", "withdrawn"]
    assert hidden_because(results)(record(entry, "a", None, level=None)) == "hostile 1 is withdrawn (by its authors)"
    with pytest.raises(UserError, match="there are hostile"):
        find(results, "other")


def listed(folder, results, version="1", authors="A"):
    """A submission that went the whole way."""
    source = write_method(folder, "pass")
    manifest = source / "submission.toml"
    text = re.sub(r"(?m)^version = .*", f'version = "{version}"', manifest.read_text())
    manifest.write_text(re.sub(r"(?m)^authors = .*", f'authors = ["{authors}"]', text))
    seal(source)
    entry = receive(source, results)
    for state in ("checked", "evaluating", "listed"):
        entry = entry.moved(state)
    return entry


def test_what_is_listed_stays_so_while_it_is_evaluated_anew_however_that_ends(tmp_path):
    entry = listed(tmp_path / "m", tmp_path / "results").moved("evaluating", noted=["two-faced"])
    (now,) = entries(tmp_path / "results")
    assert (now.state, now.shown) == ("evaluating", True)
    entry.moved("rejected", "it is another now")
    assert [e.shown for e in entries(tmp_path / "results")] == [False]


def test_what_was_never_listed_is_not_shown_while_it_is_evaluated(tmp_path):
    entry = receive(write_method(tmp_path / "m", "pass"), tmp_path / "results").moved("checked").moved("evaluating")
    assert not entry.shown


def test_a_withdrawal_during_an_evaluation_stands(tmp_path):
    entry = listed(tmp_path / "m", tmp_path / "results").moved("evaluating")
    withdraw(tmp_path / "results", "hostile", "it is not honest")
    with pytest.raises(UserError, match="became withdrawn meanwhile"):
        entry.moved("listed")
    assert [step["state"] for step in entries(tmp_path / "results")[0].data["history"]][-2:] == ["evaluating", "withdrawn"]


def test_the_listed_version_is_withdrawn_and_ten_comes_after_nine(tmp_path):
    results = tmp_path / "results"
    _, new = (listed(tmp_path / version, results, version) for version in ("1.9", "1.10"))
    supersede(new, results)
    assert [e.data["version"] for e in entries(results)] == ["1.9", "1.10"]
    assert withdraw(results, "hostile", "it is not honest").data["version"] == "1.10"
    assert [e.state for e in entries(results)] == ["superseded", "withdrawn"]


def test_a_newer_version_takes_the_place_of_one_that_is_evaluated_anew(tmp_path):
    """The old one's run, when it ends, finds that out; and puts nothing newer off the board."""
    results = tmp_path / "results"
    old = listed(tmp_path / "1", results, "1").moved("evaluating")
    new = listed(tmp_path / "2", results, "2")
    supersede(new, results)
    assert [e.state for e in entries(results)] == ["superseded", "listed"]
    with pytest.raises(UserError, match="became superseded meanwhile"):
        old.moved("listed")
    with pytest.raises(UserError, match="newer than 1"):
        refuse_takeover(entries(results)[0], results)
    back = entries(results)[0]
    for state in ("checked", "evaluating", "listed"):
        back = back.moved(state)
    supersede(back, results)
    assert [e.state for e in entries(results)] == ["listed", "listed"]
    supersede(back, results, newer=True)
    assert [e.state for e in entries(results)] == ["listed", "superseded"]


def record(entry, key, secret, level="namespace"):
    """Data of a record of a submitted attacker, as far as the board looks at them."""
    stated = {"submission": entry.data["identity"], "isolation": level, "secret": secret}
    return {"key": key, "anonymizer": {"parameters": {"std": 0.1}}, "attacker": {"parameters": stated}}


def test_what_is_half_done_or_was_done_with_another_secret_does_not_count(tmp_path):
    results = tmp_path / "results"
    entry = listed(tmp_path / "m", results).moved("evaluating").moved("listed", isolation="namespace", records=["a"])
    secret = digest(secret_of(results))
    shown = on_the_board(results)
    assert [shown(record(entry, key, secret)) for key in ("a", "b")] == [True, True]
    assert not shown(record(entry, "a", None))  # of a version of this package that had none
    assert not shown(record(entry, "a", "that of another folder"))
    assert not shown(record(entry, "a", secret, "process"))
    entry.moved("evaluating")
    shown = on_the_board(results)
    assert [shown(record(entry, key, secret)) for key in ("a", "b")] == [True, False]


def test_what_an_attacker_that_is_listed_read_counts_while_its_anonymizer_is_evaluated_anew(tmp_path):
    """It was made by the attacker's evaluation, which has ended: a panel without it would be called incomplete."""
    results = tmp_path / "results"
    method = listed(tmp_path / "m", results).moved("evaluating").moved("listed", isolation="namespace", records=["a"])
    attacker = Entry(results / "submissions" / "reader" / "1", {**method.data, "identity": "reader", "records": ["b"]})
    attacker.folder.mkdir(parents=True)
    write_json(attacker.folder / "state.json", attacker.data)
    data, by = record(method, "b", digest(secret_of(results))), record(attacker, "b", digest(secret_of(results)))
    data = {**data, "anonymizer": data["attacker"], "attacker": by["attacker"]}
    method.moved("evaluating")
    assert hidden_because(results)(data) == ""
    assert hidden_because(results)({**data, "key": "c"}) == "hostile 1 is being evaluated"


@pytest.mark.parametrize(("version", "authors", "told"), [("2", "B", "listed by other authors"), ("1", "A", "newer than 1")])
def test_what_was_received_before_takes_no_place_that_is_not_its_own_either(tmp_path, version, authors, told):
    """Received while nobody was listed, rejected, and evaluated again after somebody was."""
    results = tmp_path / "results"
    first = listed(tmp_path / "first", results, version, authors).moved("rejected")
    listed(tmp_path / "owner", results, "1.5", "A")
    with pytest.raises(UserError, match=told):
        receive(tmp_path / "first", results)
    with pytest.raises(UserError, match=told):  # while the owner is evaluated anew, too
        find(results, "hostile 1.5")[0].moved("evaluating")
        receive(tmp_path / "first", results)
    assert receive(tmp_path / "first", results, supersedes=True).state == "rejected"
    assert first.moved("checked").state == "checked"


def test_a_superseded_version_may_come_back(tmp_path):
    results = tmp_path / "results"
    _, new = (listed(tmp_path / version, results, version) for version in ("1", "2"))
    supersede(new, results)
    assert receive(tmp_path / "1", results, supersedes=True).moved("checked").state == "checked"


def test_what_a_killed_process_leaves_behind_is_no_entry(tmp_path):
    results = tmp_path / "results"
    entry = receive(write_method(tmp_path / "m", "pass"), results)
    ghost, young, other = (entry.folder.with_name(f".{name}.tmp") for name in ("1.x1y2z3w4", "1.y1y2z3w4", "1.1.x1y2z3w4"))
    for place in (ghost, young, other):
        shutil.copytree(entry.folder, place)
    for place in (ghost, other):
        os.utime(place, (0, 0))
    shutil.rmtree(entry.folder)
    assert entries(results) == []
    receive(tmp_path / "m", results)
    assert [e.folder for e in entries(results)] == [entry.folder]
    # What another process is receiving at this moment is left alone, and so is another version.
    assert [place.exists() for place in (ghost, young, other)] == [False, True, True]


def test_a_results_folder_has_one_secret_that_others_cannot_read(tmp_path):
    secret = secret_of(tmp_path)
    assert secret == secret_of(tmp_path) != secret_of(tmp_path / "other")
    assert len(secret) == 32
    path = tmp_path / "submissions" / ".secret"
    assert path.stat().st_mode & 0o077 == 0
    path.write_text("")  # as a loss of power may leave it
    assert len(secret_of(tmp_path)) == 32


def test_a_broken_state_file_is_no_entry(tmp_path):
    folder = tmp_path / "submissions" / "a" / "1"
    folder.mkdir(parents=True)
    write_json(folder / "other.json", {})
    assert list(entries(tmp_path)) == []
    shutil.rmtree(folder)
