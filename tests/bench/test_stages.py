import errno
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from bench.files import atomic_file, atomic_folder, digest, write_json
from bench.stages import CHECKPOINT, FinishedStages, MissingStageError, StageStore, content_of


def writes(text, calls):
    def compute(folder):
        calls.append(text)
        (folder / "out.txt").write_text(text)
        return {"length": len(text)}

    return compute


def test_a_stage_is_computed_once(tmp_path):
    calls = []
    store = StageStore(tmp_path)
    first = store.run("train", 1, {"seed": 0}, writes("abc", calls))
    again = StageStore(tmp_path).run("train", 1, {"seed": 0}, writes("other", calls))
    assert calls == ["abc"]
    assert first == again
    assert again.info == {"length": 3}


@pytest.mark.parametrize("change", [("fit", 1, {"seed": 0}), ("train", 2, {"seed": 0}), ("train", 1, {"seed": 1})])
def test_whatever_determines_the_output_is_in_the_key(tmp_path, change):
    calls = []
    store = StageStore(tmp_path)
    one = store.run("train", 1, {"seed": 0}, writes("abc", calls))
    two = store.run(*change, writes("abc", calls))
    assert len(calls) == 2
    assert one.key != two.key
    assert one.content == two.content  # equal files, equal content: later stages are shared


def test_content_follows_names_and_bytes(tmp_path):
    def named(name):
        return lambda folder: (folder / name).write_text("x") and None

    store = StageStore(tmp_path)
    contents = {
        store.run("s", 1, {"i": i}, compute).content for i, compute in enumerate([named("a"), named("b"), writes("x", [])])
    }
    assert len(contents) == 3


def test_a_failed_stage_leaves_nothing_and_can_be_tried_again(tmp_path):
    def fails(folder):
        (folder / "half").write_text("x")
        raise RuntimeError("boom")

    store = StageStore(tmp_path)
    with pytest.raises(RuntimeError, match="boom"):
        store.run("train", 1, {}, fails)
    assert not list(tmp_path.rglob("half"))
    assert store.run("train", 1, {}, writes("ok", [])).info == {"length": 2}


ENDINGS = [
    KeyboardInterrupt(),
    OSError(errno.ENOSPC, "no space left"),
    SafetensorError("I/O error: no space left on device"),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
]


def test_checkpoints_are_all_that_is_left_of_a_stage_whatever_ended_it(tmp_path):
    seen = []

    def compute(folder):
        seen.append(sorted(str(path.relative_to(folder)) for path in folder.rglob("*")))
        for name in ("first", "second", "empty"):
            (folder / name).mkdir(exist_ok=True)
        (folder / "first" / f"training{CHECKPOINT}").write_text("x")
        (folder / "second" / "half").write_text("x")
        if len(seen) <= len(ENDINGS):
            raise ENDINGS[len(seen) - 1]

    store = StageStore(tmp_path)
    for error in ENDINGS:
        with pytest.raises(type(error)):
            store.run("train", 1, {}, compute)
        assert len(list(tmp_path.rglob("half"))) == isinstance(error, KeyboardInterrupt)  # then removed by the next attempt
    output = store.run("train", 1, {}, compute)
    left = ["first", f"first/training{CHECKPOINT}"]
    assert seen == [[], *(left for _ in ENDINGS)]
    assert not list((tmp_path / "train").glob(".*"))
    assert sorted(path.name for path in output.path.rglob("*") if path.is_file()) == ["half", "stage.json"]
    assert output.content == content_of(output.path)


def test_a_checkpoint_stays_until_what_it_was_for_is_in_its_place(tmp_path, monkeypatch):
    """What follows the training may fail too: numbers that are none, a full disk, a kill before the folder has its name."""
    seen, numbers = [], [math.nan, 1.0, 1.0]

    def compute(folder):
        seen.append((folder / f"training{CHECKPOINT}").exists())
        (folder / f"training{CHECKPOINT}").write_text("x")
        (folder / "weights").write_text("x")
        return {"loss": numbers[len(seen) - 1]}

    def no_room(temporary, path):
        raise OSError("no space left on device")

    store = StageStore(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        store.run("train", 1, {}, compute)
    with monkeypatch.context() as full:
        full.setattr("bench.stages.put_in_place", no_room)
        with pytest.raises(OSError, match="no space"):
            store.run("train", 1, {}, compute)
    output = store.run("train", 1, {}, compute)
    assert seen == [False, True, True]
    assert sorted(path.name for path in output.path.iterdir()) == ["stage.json", "weights"]


def test_a_killed_stage_leaves_nothing_that_looks_whole(tmp_path):
    code = f"""
        import pathlib, time
        from bench.stages import StageStore
        def slow(folder):
            (folder / "half").write_text("x")
            pathlib.Path({str(tmp_path / "started")!r}).touch()
            time.sleep(60)
        StageStore({str(tmp_path / "s")!r}).run("train", 1, {{}}, slow)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    for _ in range(600):
        if (tmp_path / "started").exists():
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert list((tmp_path / "s").rglob("half"))
    output = StageStore(tmp_path / "s").run("train", 1, {}, writes("ok", []))
    assert (output.path / "out.txt").read_text() == "ok"
    assert not list((tmp_path / "s").rglob("half"))  # cleared by the next who computes it


def test_two_processes_compute_a_stage_once(tmp_path):
    code = f"""
        import os, pathlib, time
        from bench.stages import StageStore
        def compute(folder):
            pathlib.Path({str(tmp_path)!r}, f"by-{{os.getpid()}}").touch()
            time.sleep(0.5)
        print(StageStore({str(tmp_path / "s")!r}).run("train", 1, {{}}, compute).content)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {p.communicate()[0] for p in processes}
    assert all(p.returncode == 0 for p in processes)
    assert len(said) == 1
    assert len(list(tmp_path.glob("by-*"))) == 1


def test_atomic_writes_leave_the_old_or_the_new(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"b": float("nan")})
    assert path.read_text() == '{\n  "b": 1\n}\n'
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "f") as folder:
        (folder / "x").touch()
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    with atomic_folder(tmp_path / "f") as folder:
        (folder / "x").touch()
    with atomic_folder(tmp_path / "f") as folder:
        (folder / "y").touch()
    assert [p.name for p in (tmp_path / "f").iterdir()] == ["y"]


@pytest.mark.parametrize("left", ["", "{", "[]", "{}", "\x00" * 50])
def test_a_stage_that_is_damaged_is_computed_again_in_its_place(tmp_path, left):
    calls = []
    first = StageStore(tmp_path).run("train", 1, {}, writes("abc", calls))
    (first.path / "stage.json").write_text(left)
    told = "stage.json is damaged: the stage is computed again"
    with pytest.warns(UserWarning, match=told), pytest.raises(MissingStageError):
        FinishedStages(tmp_path).run("train", 1, {}, writes("abc", calls))
    with pytest.warns(UserWarning, match=told):
        again = StageStore(tmp_path).run("train", 1, {}, writes("abc", calls))
    assert calls == ["abc", "abc"]
    assert (again.content, again.path) == (first.content, first.path)
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == [first.key]


def test_what_gets_a_name_is_on_the_disk_before(tmp_path, monkeypatch):
    """As a loss of power would find it: by the order of the calls to the system."""
    done = []

    def synced(handle, fsync=os.fsync):
        done.append(f"sync {Path(os.readlink(f'/proc/self/fd/{handle}')).relative_to(tmp_path)}")
        fsync(handle)

    def renamed(kind, function):
        def call(source, target):
            done.append(f"{kind} {Path(source).relative_to(tmp_path)} to {Path(target).relative_to(tmp_path)}")
            function(source, target)

        return call

    monkeypatch.setattr(os, "fsync", synced)
    for kind in ("replace", "rename"):
        monkeypatch.setattr(os, kind, renamed("move", getattr(os, kind)))
    write_json(tmp_path / "a.json", {})
    first, moved, second = done
    assert moved == f"move {first.removeprefix('sync ')} to a.json"
    assert first.startswith("sync .a.json.")
    assert second == "sync ."
    done.clear()
    key = StageStore(tmp_path).run("train", 1, {}, lambda folder: (folder / "sub").mkdir() or writes("x", [])(folder / "sub")).key
    part = f"train/.{key}.partial"
    moves = [i for i, one in enumerate(done) if one.startswith("move")]
    assert [done[i] for i in moves] == [f"move {part} to train/{key}"]
    assert set(done[: moves[0]]) == {f"sync {part}{of}" for of in ("", "/sub", "/sub/out.txt", "/stage.json")}
    assert done[moves[0] + 1 :] == ["sync train"]
    done.clear()
    write_json(tmp_path / "a.json", {}, lasting=False)
    assert len(done) == 1


def test_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
