"""A filter of system calls for the level `namespace`, as the bytes of a program for the kernel (seccomp(2), "Classic BPF").

It is a second fence. Whatever the namespaces keep out already, it keeps strangers' code from parts of the kernel that nothing
here needs and in which mistakes are found again and again: user namespaces and mounts, io_uring, bpf, keyrings, tracing, kinds of
sockets other than local and internet ones. Memory that belongs to no process (memfd, System V) is refused as well: it would
escape the count of what a worker uses.
"""

import errno
import platform
import struct

_KILL, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # operations
_NUMBER, _MACHINE, _FIRST = 0, 4, 16  # offsets in struct seccomp_data; of the first argument its lower half
_SOCKETS = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK
_NEW_SPACES = 0x7E020000  # CLONE_NEW* in the flags of clone
_X32 = 0x40000000  # numbers of another convention, with which every list could be evaded
_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_* (linux/audit.h)
_SOCKET, _CLONE, _CLONE3 = (41, 198), (56, 220), (435, 435)
# Numbers of what is refused, on the machines in this order (asm/unistd.h).
REFUSED = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "delete_module": (176, 106),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "msgget": (68, 186),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setns": (308, 268),
    "shmget": (29, 194),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}


def program(machine: str = "") -> bytes:
    """The filter for a machine, this one by default; empty for one whose system calls are not listed here."""
    machine = machine or platform.machine()
    if machine not in _MACHINES:
        return b""
    column = list(_MACHINES).index(machine)
    steps = [
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 1, 0, _MACHINES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        *_fails(_AT_LEAST, _X32, errno.EPERM),
        *_fails(_EQUAL, _CLONE3[column], errno.ENOSYS),  # its flags lie where no filter can look; libraries use clone then
    ]
    for numbers in REFUSED.values():
        steps += _fails(_EQUAL, numbers[column], errno.EPERM)
    steps += [(_EQUAL, 0, 3, _CLONE[column]), (_LOAD, 0, 0, _FIRST), *_fails(_ANY_BIT, _NEW_SPACES, errno.EPERM)]
    steps += [(_LOAD, 0, 0, _NUMBER), (_EQUAL, 0, len(_SOCKETS) + 2, _SOCKET[column]), (_LOAD, 0, 0, _FIRST)]
    steps += [(_EQUAL, len(_SOCKETS) - i, 0, family) for i, family in enumerate(_SOCKETS)]
    steps += [(_RETURN, 0, 0, _ERRNO | errno.EAFNOSUPPORT), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _fails(test: int, value: int, error: int) -> tuple[tuple[int, int, int, int], ...]:
    """Two steps (operation, steps to skip if so, steps to skip if not, value): what passes a test fails with an error."""
    return (test, 0, 1, value), (_RETURN, 0, 0, _ERRNO | error)
