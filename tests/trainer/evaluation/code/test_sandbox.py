"""Programs that try what a model's program must not: each ends where it should, and the machine does not notice."""

import json
import os
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kanctl.errors import MissingToolError
from kanctl.trainer.evaluation.code.probe import find_leaks, require_tight
from kanctl.trainer.evaluation.code.sandbox import Outcome, Sandbox, SandboxLimits, walls
from kanctl.trainer.evaluation.code.seccomp import seccomp_filter


class Weakened(Sandbox):
    """A sandbox whose walls lack or have other words: what a broken bubblewrap would be."""

    def __init__(self, limits: SandboxLimits, *, without: tuple[str, ...] = (), more: tuple[str, ...] = ()) -> None:
        super().__init__(limits)
        program, *words = self._words
        self._words = [program, *more, *(word for word in words if word not in without)]


def test_a_program_that_ends_has_passed_and_its_output_is_kept(sandbox: Sandbox) -> None:
    outcome = sandbox.run("import math, typing, hashlib\nprint('é', math.floor(2.5))".encode())
    assert (outcome.verdict, outcome.detail, outcome.output.decode()) == ("passed", "", "é 2\n")


@pytest.mark.parametrize(
    ("source", "verdict", "detail"),
    [
        ("1 / 0", "failed", "ZeroDivisionError: division by zero"),
        ("def f(:", "failed", "SyntaxError"),
        ("x = '\0'", "failed", "null bytes"),
        ("def f(): f()\nf()", "failed", "RecursionError"),
        ("input()", "failed", "EOFError"),
        ("class E(Exception):\n  def __str__(self): raise E\nraise E", "failed", "E"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "failed", "ended with 139"),
        ("x = bytearray(1 << 30)", "memory", "MemoryError"),
        ("open('/x', 'w')", "refused", "Read-only file system"),
        ("open('/python/lib/x', 'w')", "refused", "Read-only file system"),
        ("import socket\nsocket.create_connection(('192.0.2.1', 9))", "refused", "Network is unreachable"),
        ("import os\nwhile True: os.fork()", "refused", "BlockingIOError"),
        ("with open('x', 'wb') as f:\n  while True: f.write(bytes(1 << 20))", "refused", "OSError"),
        ("import os\nfor n in range(99):\n  open(str(n), 'wb').write(bytes(1 << 20))", "refused", "No space left"),
        ("files = [open('/dev/null') for _ in range(99)]", "refused", "Too many open files"),
        ("import os\nos.setuid(0)", "refused", "PermissionError"),
        ("import os\nos.memfd_create('x')", "refused", "PermissionError"),
        ("import os\nassert not os.path.exists('/etc/passwd')\nos.listdir('/root')", "failed", "FileNotFoundError"),
    ],
)
def test_a_program_that_goes_wrong_is_told_by_its_last_line(
    sandbox: Sandbox, source: str, verdict: str, detail: str
) -> None:
    outcome = sandbox.run(source.encode())
    assert outcome.verdict == verdict
    assert detail in outcome.detail


@pytest.mark.parametrize(
    "source",
    [
        "import sys; sys.exit(0)",
        "raise SystemExit",
        "import os; os._exit(0)",
        "import os\nif os.fork(): os._exit(0)",
        "import os\nfor fd in range(32):\n  try: os.write(fd, b'ready passed')\n  except OSError: pass\nos._exit(0)",
    ],
)
def test_to_leave_before_the_end_is_not_to_pass(sandbox: Sandbox, source: str) -> None:
    assert sandbox.run(source.encode()).verdict == "failed"


def test_what_a_program_puts_in_the_place_of_our_functions_changes_nothing(sandbox: Sandbox) -> None:
    source = b"import os\nos.write = os._exit = lambda *words: print('mine')\nassert False"
    assert sandbox.run(source).verdict == "failed"


@pytest.mark.parametrize(
    "source",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        "import os, time\nos.closerange(0, 99)\ntime.sleep(60)",
        "import os, time\nos.fork()\nos.setsid() if os.getppid() != 1 else None\ntime.sleep(60)",
    ],
    ids=["busy", "asleep", "deaf", "mute", "forked"],
)
def test_a_program_without_an_end_is_ended(sandbox: Sandbox, source: str) -> None:
    start_s = time.monotonic()
    assert sandbox.run(source.encode()).verdict == "timeout"
    assert time.monotonic() - start_s < 10


def test_a_flood_of_output_is_cut_and_read_to_its_end(sandbox: Sandbox) -> None:
    outcome = sandbox.run(b"import sys\nfor _ in range(100):\n  print('x' * 9999); sys.stderr.write('y' * 9999)")
    assert outcome.verdict == "passed"
    assert len(outcome.output) == sandbox.limits.output_bytes


def test_a_program_sees_nothing_of_the_caller(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KANCTL_SECRET", "s3cret")
    source = b"import json, os; print(json.dumps([os.listdir('/'), dict(os.environ), os.getuid(), os.getcwd()]))"
    names, environment, uid, folder = json.loads(sandbox.run(source).output)
    assert {name for name in names if not name.startswith("lib")} == {"dev", "inside.py", "python", "tmp", "usr"}
    assert set(environment) <= {"PWD", "LC_CTYPE", "LD_LIBRARY_PATH"}
    assert uid not in {0, os.getuid()}
    assert folder == "/tmp"


def test_one_program_leaves_nothing_for_the_next(sandbox: Sandbox) -> None:
    assert sandbox.run(b"open('kept', 'w').write('x')").verdict == "passed"
    assert "FileNotFoundError" in sandbox.run(b"open('kept')").detail


def test_the_probe_finds_no_way_out(sandbox: Sandbox) -> None:
    require_tight(sandbox)


@pytest.mark.parametrize(
    ("changes", "leak"),
    [
        pytest.param(
            {"without": ("--unshare-net",)},
            "reached a server of the machine",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's sandbox shares nothing by one word"),
        ),
        ({"without": ("--clearenv",)}, "environment variables"),
        ({"more": ("--tmpfs", "/var")}, "sees /var"),
        ({"more": ("--tmpfs", "/root")}, "sees /root"),
    ],
    ids=["network", "environment", "folder", "root"],
)
def test_the_probe_finds_a_wall_that_is_missing(
    sandbox: Sandbox, changes: dict[str, tuple[str, ...]], leak: str
) -> None:
    leaks = find_leaks(Weakened(sandbox.limits, **changes))
    assert any(leak in found for found in leaks)


def test_the_probe_finds_calls_that_no_filter_refuses(sandbox: Sandbox) -> None:
    open_sandbox = Sandbox(sandbox.limits)
    open_sandbox._filter = None
    assert "it was given a segment of shared memory" in find_leaks(open_sandbox)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_has_whole_steps_and_leaps_that_stay_inside(machine: str) -> None:
    filter_bytes = seccomp_filter(machine)
    assert filter_bytes is not None
    steps = list(struct.iter_unpack("=HBBI", filter_bytes))
    for place, (_, if_true, if_false, _) in enumerate(steps):
        assert place + 1 + max(if_true, if_false) < len(steps) or place == len(steps) - 1
    assert steps[-1] == (0x06, 0, 0, 0x7FFF0000), "the last step allows"
    assert seccomp_filter("riscv64") is None


class Claiming(Sandbox):
    """Says that its limits are narrower than those in force."""

    def run(self, source: bytes) -> Outcome:
        return Sandbox(replace(self.limits, processes=16, memory_bytes=600 << 20)).run(source)


def test_limits_that_are_not_in_force_are_found(sandbox: Sandbox) -> None:
    with pytest.raises(MissingToolError, match="does not hold, so nothing ran") as caught:
        require_tight(Claiming(replace(sandbox.limits, memory_bytes=200 << 20)))
    assert "it forked 15 times" in str(caught.value)
    assert "bytes of memory" in str(caught.value)


def test_without_bubblewrap_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("kanctl.programs.SBIN", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match="wanted the program bwrap") as caught:
        Sandbox()
    assert caught.value.next_step == "apt-get install -y bubblewrap"


def test_where_no_sandbox_can_be_made_nothing_runs(sandbox: Sandbox, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    broken = Weakened(sandbox.limits, more=("--bind", "/nowhere-at-all", "/x"))
    with pytest.raises(MissingToolError, match="could make no sandbox here") as caught:
        broken.run(f"open({str(trace)!r}, 'w')".encode())
    assert "nowhere-at-all" in str(caught.value)
    assert not trace.exists()


def test_the_walls_hold_no_way_round() -> None:
    words = walls(SandboxLimits())
    assert {"--die-with-parent", "--new-session", "--clearenv"} <= set(words)
    assert words.count("--tmpfs") == 1
    assert "--bind" not in words
    assert words.index("--remount-ro") > words.index("--tmpfs")


@pytest.mark.parametrize("wrong", [{"cpu_s": 0}, {"processes": 0}, {"open_files": 8}, {"wall_s": -1.0}])
def test_limits_of_nothing_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="wanted"):
        SandboxLimits(**wrong)
