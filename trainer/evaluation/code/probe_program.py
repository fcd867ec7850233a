"""What the probe tries inside the sandbox; each way out that is open becomes a line of its output.

probe.py adds a call of try_all and runs it like a program of a model; it imports nothing of kanctl.
"""

import os
import signal
import socket
import sys
from contextlib import suppress


def network(port: int) -> None:
    """Another interface than the loopback, a route, or the listener that the machine itself has opened."""
    for _, name in socket.if_nameindex():
        if name != "lo":
            print(f"it sees the network interface {name}")
    # No packet leaves: connecting a datagram socket only looks for a route. 192.0.2.0/24 is nobody's, RFC 5737.
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        datagram.connect(("192.0.2.1", 9))
        print("it has a route to the network")
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        print("it reached a server of the machine")


def files(file_bytes: int) -> None:
    """Places to read or to write that are not its own."""
    for path in ("/root", "/home", "/etc/passwd", "/etc/shadow", "/proc/self", "/sys/kernel", "/var", "/run"):
        if os.path.lexists(path):
            print(f"it sees {path}")
    for folder in ("/", "/usr", "/usr/lib", "/lib", "/dev", "/python", "/python/bin", "/python/lib"):
        with suppress(OSError), open(os.path.join(folder, "probe"), "wb"):
            print(f"it can write to {folder}")
    try:
        with open("probe", "wb", buffering=0) as file:
            while file.tell() <= file_bytes:
                file.write(bytes(1 << 20))
        print(f"it wrote more than {file_bytes} bytes")
    except OSError:
        os.unlink("probe")


def privileges() -> None:
    """The machine's root, and what the caller's environment holds."""
    with suppress(OSError):
        os.setuid(0)
        print("it can be root")
    if os.getuid() == 0:
        print("it is root")
    # Three of a program's own, and the one that its end is reported by.
    opened = [fd for fd in range(256) if _is_open(fd)]
    if len(opened) > 4:
        print(f"it was given the open files {opened}")
    names = set(os.environ) - {"PWD", "LC_CTYPE", "LD_LIBRARY_PATH"}
    if names:
        print(f"it has the environment variables {', '.join(sorted(names))}")


def _is_open(fd: int) -> bool:
    with suppress(OSError):
        os.fstat(fd)
        return True
    return False


def kernel() -> None:
    """Calls that the filter refuses: memory that no limit counts, and namespaces of its own."""
    with suppress(ImportError, OSError, AttributeError):
        import ctypes

        library = ctypes.CDLL(None)
        if library.shmget(0, 1 << 20, 0o1600) >= 0:
            print("it was given a segment of shared memory")
        if library.memfd_create(b"probe", 0) >= 0:
            print("it was given a file without a name")
        if library.unshare(0x10000000) == 0:
            print("it made a user namespace")


def memory(memory_bytes: int) -> None:
    """More address space than its limit."""
    with suppress(MemoryError):
        bytearray(memory_bytes)
        print(f"it was given {memory_bytes} bytes of memory")


def processes(most: int) -> None:
    """A hundred children; those there are wait until the sandbox goes."""
    sys.stdout.flush()
    children = 0
    with suppress(OSError):
        for _ in range(100):
            if os.fork() == 0:
                signal.pause()
            children += 1
    if children >= most:
        print(f"it forked {children} times")


def try_all(asked: dict[str, int]) -> None:
    """Every way out; `asked` holds the limits that should be in force, and the port of the machine's own listener."""
    network(asked["port"])
    files(asked["file_bytes"])
    privileges()
    kernel()
    memory(asked["memory_bytes"])
    processes(asked["processes"])
