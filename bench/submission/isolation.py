"""Levels of isolation for foreign code: how its process is started, what it can reach, and whether this machine can do it.

    process     a process of its own with a clean environment and limits; a mistake stops there, malice does not
    namespace   bubblewrap: no network, a system that can only be read, no data, no results, an empty home, no rights
    container   a command of the user's own, `BENCH_CONTAINER`, that starts the same worker elsewhere, as well apart

A level is asked for and either holds or is refused: it is never lowered in silence.
"""

import os
import pwd
import shlex
import shutil
import site
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench.files import UserError
from bench.submission import seccomp

LEVELS = ("process", "namespace", "container")
CONTAINER = "BENCH_CONTAINER"
MOUNT = "/submission"
_PACKAGES = ("bench", "anonymizers", "attackers")
_HOUSE = "/opt/bench"  # where the worker finds these packages
_SYSTEM = (
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/bin",
    "/sbin",
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/localtime",
)
_KEPT = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "LD_LIBRARY_PATH")  # a clean environment still computes with the same code
_PROBE = "from bench.submission.promises import main; main()"
_FILTER = "FILTER"  # stands for the number of an open file
_WORKER = "from bench.submission.worker import main; main()"
_CONTAINER_RUNS = f"python -c '{_WORKER}'"
_PROBE_SECONDS = 20.0
_OURS = "anonymizers.controls:Identity"


@dataclass(frozen=True)
class Limits:
    """What foreign code may use.

    Args:
        seconds: Of one request: a batch of clips, or a whole training.
        memory_mb: Of all its processes together, beyond what the worker itself needs.
        file_mb: Of one file, and at the level `namespace` of all files in /tmp, and of all in /dev/shm.
        processes: At a time.
        answer_mb: Of one answer: what was learnt, or a batch of clips.
    """

    seconds: float = 3600.0
    memory_mb: float = 8192.0
    file_mb: float = 512.0
    processes: int = 32
    answer_mb: float = 1024.0


class IsolationError(UserError):
    """A level that this machine does not have, or that needs the user's word."""


@dataclass(frozen=True)
class Start:
    """How a worker is started.

    Args:
        command: Program and arguments.
        environment: All of its environment.
        folder: Where the submission's files lie, as the worker sees them.
        user: Account that it runs as; None for the caller's.
        filter: Program that filters its system calls; empty for none.
    """

    command: tuple[str, ...]
    environment: dict[str, str]
    folder: str
    user: int | None = None
    filter: bytes = b""

    def process(self, **how: Any) -> subprocess.Popen:
        """The running worker; `how` is what `Popen` takes besides."""
        with tempfile.TemporaryFile() as file:  # the filter is read from an open file that the worker inherits
            file.write(self.filter)
            file.seek(0)
            number = file.fileno()
            command = [str(number) if word == _FILTER else word for word in self.command]
            return subprocess.Popen(
                command, env=self.environment, user=self.user, pass_fds=(number,) if self.filter else (), **how
            )


def start_of(level: str, submission: Path, limits: Limits, *, command: Sequence[str] = ()) -> Start:
    """How a worker of a level is started for a submission.

    Args:
        command: What to run instead of the worker, for probes.

    Raises:
        IsolationError: if the machine does not have the level.
    """
    submission = submission.resolve()
    if level == "process":
        return Start(_python(command), _environment(str(_root().parent)), str(submission))
    if level == "namespace":
        user = _account()
        return _apart(submission, limits, command, user if user is not None and _open_to_all(submission) else None)
    if level == "container":
        template = os.environ.get(CONTAINER, "")
        if not template:
            raise IsolationError(
                f"the level container needs {CONTAINER}, a command that runs `{_CONTAINER_RUNS}` in your container with "
                f"{{submission}} at {MOUNT}, to read only, and passes on its standard input and output"
            )
        return Start(tuple(shlex.split(template.format(submission=submission))), dict(os.environ), MOUNT)
    raise IsolationError(f"isolation must be one of {', '.join(LEVELS)}, got {level!r}")


def _apart(submission: Path, limits: Limits, command: Sequence[str], user: int | None) -> Start:
    """A start at the level `namespace`, by an account."""
    filter_ = seccomp.program()
    return Start((*_bubblewrap(submission, limits, filters=bool(filter_)), *_python(command)), {}, MOUNT, user, filter_)


def choose_level(wanted: str | None, *, trust: bool) -> str:
    """The level to use: the one asked for, or the strongest that needs nothing of the user.

    Raises:
        IsolationError: if the machine does not have it, or it is below `namespace` and the user does not trust the code.
    """
    level = wanted or ("namespace" if not (trust and probe("namespace")) else "process")
    if level == "process" and not trust:
        raise IsolationError("the level process does not stop malice; say --trust if you trust this code, or use namespace")
    if problem := probe(level):
        hint = "; with --trust, code that you trust runs at the level process" if level == "namespace" else ""
        raise IsolationError(f"isolation {level} does not work here: {problem}{hint}")
    return level


def refuse_visible(level: str, results: Path) -> None:
    """Makes sure that neither the results nor the data that `BENCH_DATA` names lie where isolated code can read.

    Raises:
        IsolationError: if one does.
    """
    if level != "namespace":
        return
    seen = [Path(path).resolve() for path in _SYSTEM if Path(path).is_dir()] + _python_folders()
    seen += [_root().parent / package for package in _PACKAGES]
    data = os.environ.get("BENCH_DATA")
    for folder in (results, *([Path(data)] if data else [])):
        if top := next((top for top in seen if folder.resolve().is_relative_to(top)), None):
            raise IsolationError(f"{folder} lies below {top}, which isolated code can read; put it elsewhere")


@cache
def probe(level: str) -> str:
    """Why this machine does not have a level; "" if it does. It is tried, not guessed."""
    if level == "process":
        return ""
    if level == "namespace":
        return "bubblewrap is for Linux" if sys.platform != "linux" else _inside(_account())
    return _speaks(level)


def _speaks(level: str) -> str:
    """Why the user's own container does not answer as a worker does, or does not keep apart; "" if it does both."""
    from bench.submission.session import Foreign, ForeignError, Session

    with tempfile.TemporaryDirectory(prefix="bench-probe-") as folder:
        Path(folder).chmod(0o755)
        try:  # a method of this package: what it answers is to be trusted
            with Session(Foreign(Path(folder), ".", _OURS, (), level, Limits(seconds=_PROBE_SECONDS))) as session:
                return "; ".join(session.ask("promises", {}, {}, 2**16)[0]["broken"])
        except (ForeignError, IsolationError, OSError) as error:
            return str(error)


@cache
def _account() -> int | None:
    """Who starts bubblewrap: where the caller is root, somebody without rights, for whom alone limits on processes hold.

    That account may not be able to read Python's folder, or the submission's; then it is the caller, and processes are counted
    from outside only.
    """
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return None
    return None if _inside(nobody) else nobody


def _open_to_all(folder: Path) -> bool:
    """Whether another account comes as far as this folder: below the home of root, say, it does not."""
    return all(path.stat().st_mode & stat.S_IXOTH for path in (folder, *folder.parents))


def _inside(user: int | None) -> str:
    """What does not hold inside the level `namespace`, started by an account; "" if all does."""
    with tempfile.TemporaryDirectory(prefix="bench-probe-") as folder:
        Path(folder).chmod(0o755)
        try:
            start = _apart(Path(folder), Limits(), ("-c", _PROBE), user)
            streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            with start.process(cwd="/", **streams) as process:
                try:
                    out, errors = process.communicate(timeout=_PROBE_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise
        except IsolationError as error:
            return str(error)
        except (OSError, subprocess.SubprocessError) as error:
            return f"{type(error).__name__}: {error}"
    said = (errors or out).strip().splitlines()
    return "" if process.returncode == 0 and out.strip() == "apart" else said[-1] if said else "the probe said nothing"


def _root() -> Path:
    """Folder of the package `bench`."""
    return Path(__file__).resolve().parents[1]


def _python(command: Sequence[str]) -> tuple[str, ...]:
    return (sys.executable, "-s", *(command or ("-c", _WORKER)))


def _environment(path: str) -> dict[str, str]:
    fixed = {
        "PYTHONPATH": path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "HOME": "/tmp",
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
    }
    return {**{name: os.environ[name] for name in _KEPT if name in os.environ}, **fixed}


@cache
def _knows(program: str, option: str) -> bool:
    """Whether this version of bubblewrap has an option."""
    return option in subprocess.run([program, "--help"], capture_output=True, text=True, check=False).stdout


def _bubblewrap(submission: Path, limits: Limits, *, filters: bool) -> tuple[str, ...]:
    program = shutil.which("bwrap")
    if program is None:
        raise IsolationError("bubblewrap is not installed (Debian, Ubuntu: apt install bubblewrap)")
    command = [
        program,
        "--unshare-all",
        "--unshare-user",
        "--die-with-parent",
        "--new-session",
        "--clearenv",
        "--cap-drop",
        "ALL",
    ]
    command += ["--disable-userns"] if _knows(program, "--disable-userns") else []  # the filter refuses them as well
    command += ["--seccomp", _FILTER] if filters else []
    command += ["--uid", "65534", "--gid", "65534", "--hostname", "bench"]
    for path in _SYSTEM:
        if Path(path).is_symlink():
            command += ["--symlink", os.readlink(path), path]
        elif Path(path).exists():
            command += ["--ro-bind", path, path]
    command += ["--proc", "/proc", "--dev", "/dev"]
    for scratch in ("/tmp", "/dev/shm"):  # before Python's folders, which may lie below
        command += ["--size", str(int(limits.file_mb * 2**20)), "--tmpfs", scratch]
    for path in _python_folders():
        command += ["--ro-bind", str(path), str(path)]
    for package in _PACKAGES:  # the packages alone: beside them may lie results, with labels
        command += ["--ro-bind", str(_root().parent / package), f"{_HOUSE}/{package}"]
    command += ["--size", str(2**20), "--tmpfs", "/home/user", "--ro-bind", str(submission), MOUNT, "--chdir", "/tmp"]
    command += ["--remount-ro", "/dev", "--remount-ro", "/"]  # or files there would take memory without bounds
    for name, value in {**_environment(_HOUSE), "HOME": "/home/user"}.items():
        command += ["--setenv", name, value]
    return (*command, "--")


def _python_folders() -> list[Path]:
    """Where Python and its packages lie, but for what the system's folders hold already; none within another."""
    wanted = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent, *map(Path, site.getsitepackages())}
    wanted = {path.resolve() for path in wanted if path.is_dir()} | {Path(sys.prefix)}
    kept = [path for path in wanted if not any(other in path.parents for other in wanted)]
    return sorted(path for path in kept if not any(path.is_relative_to(top) for top in _SYSTEM))
