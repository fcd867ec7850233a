"""The kernel calls that no program of a model needs, as a seccomp filter for bubblewrap.

Namespaces hide the machine; this closes what they leave: memory that no limit counts (System V segments, files without
a name), namespaces inside of ours, other processes, keys, and the kernel's newest and least tried doors.
"""

import errno
import platform
import struct

# Source: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux 6.12.
X86_64 = {
    "shmget": 29,
    "shmat": 30,
    "clone": 56,
    "semget": 64,
    "msgget": 68,
    "ptrace": 101,
    "mount": 165,
    "umount2": 166,
    "mq_open": 240,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "unshare": 272,
    "perf_event_open": 298,
    "open_by_handle_at": 304,
    "setns": 308,
    "process_vm_readv": 310,
    "process_vm_writev": 311,
    "memfd_create": 319,
    "bpf": 321,
    "userfaultfd": 323,
}
AARCH64 = {
    "shmget": 194,
    "shmat": 196,
    "clone": 220,
    "semget": 190,
    "msgget": 186,
    "ptrace": 117,
    "mount": 40,
    "umount2": 39,
    "mq_open": 180,
    "add_key": 217,
    "request_key": 218,
    "keyctl": 219,
    "unshare": 97,
    "perf_event_open": 241,
    "open_by_handle_at": 265,
    "setns": 268,
    "process_vm_readv": 270,
    "process_vm_writev": 271,
    "memfd_create": 279,
    "bpf": 280,
    "userfaultfd": 282,
}
# Since 2019 a call has one number on all machines.
EVERYWHERE = {
    "io_uring_setup": 425,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsmount": 432,
    "clone3": 435,
    "pidfd_getfd": 438,
    "memfd_secret": 447,
}
# AUDIT_ARCH_* of include/uapi/linux/audit.h.
MACHINES = {"x86_64": (0xC000003E, X86_64), "aarch64": (0xC00000B7, AARCH64)}
# Calls with this bit are those of x32, under other numbers.
X32_BIT = 0x40000000
# All CLONE_NEW*: a fork has none of them.
NEW_NAMESPACES = 0x7E020000

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000


def seccomp_filter(machine: str | None = None) -> bytes | None:
    """The filter for this machine or another, None where the numbers of its calls are not known here.

    A call refused gives EPERM; one in the numbers of another architecture ends the process. Source: seccomp(2).
    """
    known = MACHINES.get(machine or platform.machine())
    if known is None:
        return None
    architecture, numbers = known
    denied = {**numbers, **EVERYWHERE}
    clone, clone3 = denied.pop("clone"), denied.pop("clone3")
    steps = [
        *(_step(LOAD, ARCHITECTURE), _step(EQUAL, architecture, 1, 0), _step(RETURN, KILL)),
        *(_step(LOAD, NUMBER), _step(AT_LEAST, X32_BIT, 0, 1), _step(RETURN, REFUSE | errno.EPERM)),
    ]
    for number in sorted(denied.values()):
        steps += [_step(EQUAL, number, 0, 1), _step(RETURN, REFUSE | errno.EPERM)]
    # A filter cannot read what clone3 is asked for; without it the C library asks clone, which it can.
    steps += [_step(EQUAL, clone3, 0, 1), _step(RETURN, REFUSE | errno.ENOSYS)]
    steps += [_step(EQUAL, clone, 0, 3), _step(LOAD, FIRST_ARGUMENT), _step(ANY_BIT, NEW_NAMESPACES, 0, 1)]
    steps += [_step(RETURN, REFUSE | errno.EPERM), _step(RETURN, ALLOW)]
    return b"".join(steps)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One struct sock_filter; the last two say how many steps to leap."""
    return struct.pack("=HBBI", code, if_true, if_false, value)
