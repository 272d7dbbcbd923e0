"""What must not work inside the levels `namespace` and `container`: tried from within, where nothing of strangers runs."""

import ctypes
import os
import socket
import sys
from collections.abc import Callable

_NEW_USER = 0x10000000  # CLONE_NEWUSER


def broken() -> list[str]:
    """The promises that do not hold here, in words; none if all do."""
    home = os.environ.get("HOME", "/")
    kept = {
        "there is a network": len(socket.if_nameindex()) <= 1,
        "the system can be written": _read_only("/usr/probe"),
        "the submission can be written": _read_only("/submission/probe"),
        "its root can be written": _read_only("/probe"),
        "its devices can be written": _read_only("/dev/probe"),
        "it runs as root": os.getuid() != 0,
        "the home is not empty": not os.path.isdir(home) or os.listdir(home) == [],
        "other processes can be seen": len([p for p in os.listdir("/proc") if p.isdigit()]) <= 3,
        "it can make user namespaces": _refused(lambda libc: libc.unshare(_NEW_USER)),
    }
    return [what for what, held in kept.items() if not held]


def _read_only(path: str) -> bool:
    try:
        with open(path, "w"):
            return False
    except OSError:
        return True


def _refused(call: Callable[[ctypes.CDLL], int]) -> bool:
    """Whether a call of the C library fails, tried in a child, which it may change."""
    child = os.fork()
    if not child:
        os._exit(int(call(ctypes.CDLL(None)) != 0))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def main() -> None:
    """Says "apart", or what does not hold."""
    found = broken()
    sys.exit("; ".join(found)) if found else print("apart")
