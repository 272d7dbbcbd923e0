"""Hostile submissions: each is stopped and named; each does harm where nothing stops it (positive controls)."""

import contextlib
import dataclasses
import datetime
import platform
import shlex
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench.submission import check as checking
from bench.submission.channel import MessageError, receive, send
from bench.submission.check import Report, check
from bench.submission.isolation import IsolationError, Limits, choose_level, probe, start_of
from bench.submission.manifest import read_manifest, seal
from bench.submission.seccomp import REFUSED
from bench.submission.session import ForeignError, Session, close_all
from bench.submission.source import Submission
from tests.bench.hostile import BODIES, HEAD, write_method

LIMITS = Limits(seconds=20.0, memory_mb=600.0, file_mb=16.0, processes=16)
CLIPS = torch.rand(2, 3, 4, 25, 1)


def needs_namespace() -> None:
    if problem := probe("namespace"):
        pytest.skip(f"isolation namespace does not work here: {problem}")


@pytest.fixture
def namespace() -> str:
    needs_namespace()
    return "namespace"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder that no worker may use as scratch space."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def tight(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(checking, "LIMITS", LIMITS)
    yield
    close_all()


@contextlib.contextmanager
def _silent(text: str) -> Iterator:
    yield lambda done, total, text="": None


def body(name: str, **values: object) -> str:
    text = BODIES[name]
    for key, value in values.items():
        text = text.replace(f"{{{key}}}", str(value))
    return text


def checked(folder: Path, results: Path, level: str = "namespace") -> Report:
    return check(folder, level, results, _silent)


def wrong(report: Report) -> set[str]:
    return {finding.name for finding in report.findings if finding.grave}


def transform(folder: Path, level: str, limits: Limits = LIMITS) -> torch.Tensor:
    """What the submitted method makes of `CLIPS`, in a worker of its own."""
    with Session(Submission(folder, read_manifest(folder)).foreign(level, limits)) as session:
        return asked(session)


def asked(session: Session, clips: torch.Tensor = CLIPS) -> torch.Tensor:
    number = len(clips)
    tensors = {"clips": clips, "lengths": torch.full((number,), 4), "seeds": torch.arange(number)}
    return session.ask("transform", {"layout": "ntu", "frame_rate": 30.0}, tensors)[1]["clips"]


class Listener:
    """Somebody on this machine who waits for a call."""

    def __enter__(self) -> "Listener":
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port, self.heard = self._socket.getsockname()[1], threading.Event()
        threading.Thread(target=self._wait, daemon=True).start()
        return self

    def _wait(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.accept()[0].close()
            self.heard.set()

    def __exit__(self, *exception: object) -> None:
        self._socket.close()


def test_the_namespace_cannot_call_out_and_the_check_names_it(tmp_path, results, namespace):
    with Listener() as listener:
        folder = write_method(tmp_path / "m", body("network", port=listener.port))
        report = checked(folder, results)
        assert not listener.heard.is_set()
    assert "behaviour" in wrong(report)
    assert any(finding.what.startswith("network") for finding in report.findings)


def test_without_isolation_the_same_call_is_heard(tmp_path):
    with Listener() as listener:
        transform(write_method(tmp_path / "m", body("network", port=listener.port)), "process")
        assert listener.heard.wait(5)


def test_the_namespace_has_no_labels_and_the_check_names_the_attempt(tmp_path, elsewhere, results, namespace):
    labels = elsewhere / "labels.csv"
    labels.write_text("clip,subject\na,1\n")
    report = checked(write_method(tmp_path / "m", body("read outside", labels=labels)), results)
    assert {"behaviour", "code"} <= wrong(report)
    assert any(f.what == f"read outside: {labels}" for f in report.findings)
    assert any("FileNotFoundError" in f.what for f in report.findings)


def test_without_isolation_the_labels_can_be_read(tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("clip,subject\na,1\n")
    assert torch.equal(transform(write_method(tmp_path / "m", body("read outside", labels=labels)), "process"), CLIPS)


def test_the_namespace_cannot_write_outside(tmp_path, elsewhere, results, namespace):
    outside = elsewhere / "outside"
    report = checked(write_method(tmp_path / "m", body("write outside", outside=outside)), results)
    assert "behaviour" in wrong(report)
    assert any(f.what.startswith("write outside") for f in report.findings)
    assert not outside.exists()


def test_without_isolation_the_file_is_written(tmp_path):
    outside = tmp_path / "outside"
    transform(write_method(tmp_path / "m", body("write outside", outside=outside)), "process")
    assert outside.read_text() == "here"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["processes", "memory", "time", "file size", "ended"])
def test_what_eats_the_machine_is_stopped_and_named(tmp_path, results, namespace, name, monkeypatch):
    if name == "time":
        monkeypatch.setattr(checking, "LIMITS", dataclasses.replace(LIMITS, seconds=3.0))
    started = time.monotonic()
    report = checked(write_method(tmp_path / "m", body(name)), results)
    assert name in wrong(report), report.findings
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("name", ["memory", "time", "file size", "ended"])
def test_limits_hold_for_trusted_code_as_well(tmp_path, name):
    limits = dataclasses.replace(LIMITS, seconds=5.0) if name == "time" else LIMITS
    with pytest.raises(ForeignError) as caught:
        transform(write_method(tmp_path / "m", body(name)), "process", limits)
    assert caught.value.kind == name


def test_a_longer_training_is_granted(tmp_path, namespace):
    """Positive control of the endless loop: it is the limit that ends it."""
    loop = "until = time.monotonic() + 2\nwhile time.monotonic() < until: pass"
    folder = write_method(tmp_path / "m", loop)
    with pytest.raises(ForeignError, match="time: it took more"):
        transform(folder, namespace, dataclasses.replace(LIMITS, seconds=0.5))
    assert torch.equal(transform(folder, namespace), CLIPS)


def test_memory_that_belongs_to_no_process_is_counted_or_refused(tmp_path, namespace):
    """Files in memory: 1 GB of them where 1 MB is allowed besides what a worker needs; with wider limits it works."""
    hold = "f = os.memfd_create('a')\nfor _ in range(64): os.write(f, b'x' * 2**25)\ntime.sleep(1)"
    folder = write_method(tmp_path / "m", hold)
    tight = dataclasses.replace(LIMITS, memory_mb=600.0, file_mb=4096.0)
    with pytest.raises(ForeignError) as caught:
        transform(folder, "process", tight)
    assert caught.value.kind == "memory"
    assert torch.equal(transform(folder, "process", dataclasses.replace(tight, memory_mb=8192.0)), CLIPS)
    with pytest.raises(ForeignError, match="PermissionError"):
        transform(folder, namespace, tight)


def test_system_calls_that_nothing_needs_are_refused(tmp_path, namespace):
    look = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
found = {"userns": libc.unshare(0x10000000), "bpf": libc.syscall({bpf}, 0, 0, 0), "io_uring": libc.syscall(425, 0, 0)}
assert set(found.values()) == {-1}, found
for family in (38, 40):
    try:
        socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        assert error.errno == 97, error
    else:
        raise AssertionError(family)
"""
    look = look.replace("{bpf}", str(REFUSED["bpf"][platform.machine() == "aarch64"]))
    assert torch.equal(transform(write_method(tmp_path / "m", look), namespace), CLIPS)


def test_with_wider_limits_the_same_memory_and_file_are_granted(tmp_path, namespace):
    """Positive control: it is the limit that stops, not the sandbox that cannot."""
    some = write_method(tmp_path / "a", "kept = np.ones(2**27)")  # 1 GB
    with pytest.raises(ForeignError, match="memory"):
        transform(some, namespace)
    wide = dataclasses.replace(LIMITS, memory_mb=2000.0, file_mb=128.0)
    assert torch.equal(transform(some, namespace, wide), CLIPS)
    assert torch.equal(transform(write_method(tmp_path / "b", body("file size")), namespace, wide), CLIPS)


def test_it_is_the_number_of_processes_that_stops_a_fork_bomb(tmp_path, namespace):
    """Positive control: forty of them where sixteen are allowed, and where a hundred are, with isolation and without."""
    forty = "for _ in range(40):\n    if os.fork() == 0:\n        time.sleep(5)\n        os._exit(0)"
    folder = write_method(tmp_path / "m", forty)
    with pytest.raises(ForeignError):
        transform(folder, namespace)
    wide = dataclasses.replace(LIMITS, processes=100, memory_mb=4096.0)
    for level in (namespace, "process"):
        assert torch.equal(transform(folder, level, wide), CLIPS)


TOMORROW = datetime.date.today().toordinal() + 1
MISBEHAVES = {
    "clock": ("clock", {"year": time.time() + 86400}),
    "date": ("clock", {"day": TOMORROW}),
    "determinism": ("determinism", {}),
    "batch independence": ("batch independence", {}),
    "randomness": ("determinism", {}),
    "contract": ("contract", {}),
    "absent bodies": ("contract", {}),
    "not finite": ("contract", {}),
    "hidden identity": ("hidden identity", {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MISBEHAVES)
def test_what_makes_numbers_worthless_is_named(tmp_path, results, namespace, name):
    finding, values = MISBEHAVES[name]
    assert finding in wrong(checked(write_method(tmp_path / "m", body(name, **values)), results))


def test_where_nobody_looks_a_clip_tells_of_those_beside_it(tmp_path):
    """Positive control of batch independence."""
    folder = write_method(tmp_path / "m", body("batch independence"))
    with Session(Submission(folder, read_manifest(folder)).foreign("process", LIMITS)) as session:
        alone, beside = asked(session, CLIPS[:1]), asked(session)[:1]
    assert not torch.equal(alone, beside)
    assert torch.allclose(alone, beside, rtol=0.02)


@pytest.mark.parametrize("ask", ["time.clock_gettime(0)", "time.mktime(time.strptime(time.ctime()))", "time.time_ns() / 1e9"])
def test_every_clock_of_python_is_moved(tmp_path, ask):
    """A bomb for tomorrow goes off under the clock of the check, and only there; libraries that need plain dates still load."""
    bomb = f"import pandas\nif {ask} > {time.time() + 86400}: return batch.clips * 0.5"
    submission = Submission(folder := write_method(tmp_path / "m", bomb), read_manifest(folder))
    for clock, expected in ((0.0, CLIPS), (400 * 86400.0, CLIPS * 0.5)):
        with Session(submission.foreign("process", LIMITS, clock)) as session:
            assert torch.equal(asked(session), expected)


def test_a_method_that_does_nothing_wrong_passes(tmp_path, results, namespace):
    """Negative control: none of the checks above is always raised. What the check measures is for no board."""
    report = checked(write_method(tmp_path / "m", "return batch.clips * 0.9"), results)
    assert not (results / "records").exists()
    assert list((results / "checks" / "records").rglob("*.json"))
    assert not report.findings, report.findings
    assert {"determinism", "clock", "hidden identity", "behaviour", "smoke evaluation"} <= set(report.passed)


def test_a_parameter_without_effect_is_named(tmp_path, results, namespace):
    folder = write_method(tmp_path / "m", "return batch.clips * 0.9")
    code = folder / "src" / "method.py"
    code.write_text(
        code.read_text().replace('not."""\n', 'not."""\n\n    strength: float = param(1.0, "nothing", minimum=0.0)\n')
    )

    seal(folder)
    assert wrong(checked(folder, results)) == {"parameters"}


@pytest.mark.parametrize(
    ("line", "finding", "told"),
    [
        ('code_version = "later"', "answer", "declares code_version wrongly"),
        ('uses = ("subject",)', "contract", "submitted code gets none"),
        ("learns = 3", "answer", "declares learns wrongly"),
    ],
)
def test_what_a_class_declares_is_not_taken_as_it_comes(tmp_path, results, namespace, line, finding, told):
    folder = write_method(tmp_path / "m", "return batch.clips * 0.9")
    code = folder / "src" / "method.py"
    code.write_text(code.read_text().replace('not."""\n', f'not."""\n\n    {line}\n'))
    seal(folder)
    report = checked(folder, results)
    assert wrong(report) == {finding}
    assert any(told in f.what for f in report.findings)


def test_the_environment_inside_is_clean_and_the_account_has_no_rights(tmp_path, namespace, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    look = """
assert "SECRET_TOKEN" not in os.environ, "secret"
assert os.getuid() != 0, "root"
assert os.listdir(os.environ["HOME"]) == [], "home"
for place in ("/usr/x", "/submission/x", "/x", "/dev/x", sys.prefix + "/x"):
    try:
        open(place, "w")
    except OSError:
        continue
    raise AssertionError(place)
"""
    assert torch.equal(transform(write_method(tmp_path / "m", look), namespace), CLIPS)


def test_only_packages_are_seen_of_the_source_tree(tmp_path, namespace):
    import bench

    tree = Path(bench.__file__).resolve().parents[1]
    look = f'assert not Path("{tree}", "results").exists() and not Path("{tree}", "setup.cfg").exists()'
    assert torch.equal(transform(write_method(tmp_path / "m", look), namespace), CLIPS)


def test_names_and_seeds_tell_nothing_of_the_clip(tmp_path, namespace):
    look = 'assert batch.names == () and not batch.labels, "names"'
    assert torch.equal(transform(write_method(tmp_path / "m", look), namespace), CLIPS)


def test_seeds_of_submitted_code_do_not_follow_from_names():
    from bench.anonymizer import anonymize
    from bench.submission.foreign import ForeignAnonymizer
    from tests.anonymizers.samples import clip_set, noise_clips

    seen = []

    class Blind(ForeignAnonymizer):
        def transform(self, batch, state):
            seen.append((batch.seeds, batch.names))
            return batch.clips

    clips = clip_set(noise_clips())
    renamed = dataclasses.replace(clips, names=clips.names[::-1].copy())
    for one in (clips, renamed):
        anonymize(Blind(), {}, one, seed=0, draw="holder/0")
    assert seen[0] == seen[1]
    assert all(names == () for _, names in seen)


def test_isolation_is_never_lowered_in_silence(monkeypatch):
    with pytest.raises(IsolationError, match="--trust"):
        choose_level("process", trust=False)
    assert choose_level("process", trust=True) == "process"
    monkeypatch.setattr("bench.submission.isolation.probe", lambda level: "no bubblewrap" if level == "namespace" else "")
    with pytest.raises(IsolationError, match="no bubblewrap"):
        choose_level(None, trust=False)
    with pytest.raises(IsolationError, match="no bubblewrap"):
        choose_level("namespace", trust=True)
    assert choose_level(None, trust=True) == "process"


def test_a_container_is_the_users_own_command(tmp_path, monkeypatch):
    monkeypatch.delenv("BENCH_CONTAINER", raising=False)
    with pytest.raises(IsolationError, match="BENCH_CONTAINER"):
        start_of("container", tmp_path, LIMITS)
    monkeypatch.setenv("BENCH_CONTAINER", "runner -v {submission}:/submission image")
    assert start_of("container", tmp_path, LIMITS).command == ("runner", "-v", f"{tmp_path}:/submission", "image")


def test_a_container_is_tried_before_it_is_said_to_work(monkeypatch, tmp_path, namespace):
    """A command that starts the worker where it can reach everything is no container; bubblewrap is one."""
    worker = f'{sys.executable} -c "from bench.submission.worker import main; main()"'
    monkeypatch.setattr("bench.submission.seccomp.program", lambda: b"")  # the command is all there is to hand over
    apart = shlex.join(start_of("namespace", tmp_path, LIMITS).command).replace(str(tmp_path), "{submission}")
    for command, told in ((apart, ""), (worker, "its root can be written"), ("false", "ended"), ("no-such", "No such file")):
        probe.cache_clear()
        monkeypatch.setenv("BENCH_CONTAINER", command)
        found = probe("container")
        assert told in found if told else not found, found
    probe.cache_clear()


def test_damaged_messages_are_refused(tmp_path):
    path = tmp_path / "message"
    with path.open("wb") as file:
        send(file, {"do": "x"}, {"clips": CLIPS})
    whole = path.read_bytes()
    with path.open("rb") as file:
        assert torch.equal(receive(file, 10**6)[1]["clips"], CLIPS)
    with path.open("rb") as file, pytest.raises(MessageError, match="are allowed"):
        receive(file, 100)
    for content, error in ((whole[:-1], EOFError), (whole[:20] + b"\xff" + whole[21:], MessageError), (b"", EOFError)):
        path.write_bytes(content)
        with path.open("rb") as file, pytest.raises(error):
            receive(file, 10**6)


def test_code_that_writes_into_the_channel_is_named(tmp_path, namespace):
    forge = "\n".join(
        (
            "for fd in range(3, 64):",
            "    try: os.write(fd, b'\\xff' * 4096)",
            "    except OSError: pass",
        )
    )
    with pytest.raises(ForeignError) as caught:
        transform(write_method(tmp_path / "m", forge), namespace)
    assert caught.value.kind == "answer"


def test_import_time_acts_are_named_too(tmp_path, results, namespace):
    folder = write_method(tmp_path / "m", "pass", head=HEAD + '\nopen("/etc/../home/x/.ssh/id_rsa").read()\n')
    report = checked(folder, results)
    assert "code" in wrong(report)
    assert any(f.what.startswith("read outside: /home/x/.ssh/id_rsa") for f in report.findings)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's way of ending children is Linux's")
def test_the_worker_ends_with_the_evaluator(tmp_path, namespace):
    import subprocess

    import psutil

    folder = write_method(tmp_path / "m", "while True: pass")
    script = (
        "import sys; from pathlib import Path\n"
        "from bench.submission.session import Session; from bench.submission.source import Submission\n"
        "from bench.submission.manifest import read_manifest; from bench.submission.isolation import Limits\n"
        "folder = Path(sys.argv[1])\n"
        "session = Session(Submission(folder, read_manifest(folder)).foreign(sys.argv[2], Limits()))\n"
        "print(session._process.pid, flush=True); input()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(folder), namespace], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    worker = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()
    psutil.wait_procs([worker], timeout=10)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
