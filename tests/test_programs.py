"""Programs that end badly, are missing, or are left half way: what the caller sees, and what stays behind."""

import os
import sys
import time

import pytest

from kanctl import programs
from kanctl.errors import MissingToolError
from kanctl.lab.processes import is_alive
from kanctl.programs import ProgramFailed, require, run, run_logged, run_with_progress


def test_a_missing_program_is_named_with_the_package_that_brings_it():
    with pytest.raises(MissingToolError, match="no-such-ip") as caught:
        run(["no-such-ip"], package="iproute2")
    assert caught.value.next_step == "apt-get install -y iproute2"
    assert caught.value.exit_code == 5


def test_all_missing_packages_are_one_line_each_named_once(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "SBIN", ())
    with pytest.raises(MissingToolError, match="the work needs b, a, c") as caught:
        require({"b": "two", "a": "one", "c": "two"}, "the work")
    assert caught.value.next_step == "apt-get install -y --no-install-recommends one two"
    with pytest.raises(MissingToolError) as caught:
        require({"b": "two"}, "the work", with_recommended=True)
    assert caught.value.next_step == "apt-get install -y two"


def test_each_line_is_passed_on_and_the_environment_is_all_that_is_given(monkeypatch):
    monkeypatch.setenv("KANCTL_TEST", "ours")
    lines: list[str] = []
    words = ["sh", "-c", "cat; echo ${KANCTL_TEST:-none}"]
    run_with_progress(words, on_line=lines.append, stdin="one\ntwo\n", environment={"PATH": os.environ["PATH"]})
    assert lines == ["one", "two", "none"]
    assert run(["sh", "-c", "echo $KANCTL_TEST $MORE"], environment={"MORE": "more"}) == "ours more\n"


def test_a_program_that_does_not_read_its_input_says_itself_why_it_ended():
    with pytest.raises(ProgramFailed, match="ended with 7:\n  no"):
        run_with_progress(["sh", "-c", "exec <&-; echo no; exit 7"], on_line=lambda _: None, stdin="x" * 2**20)


def test_a_log_holds_the_command_and_all_it_said(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(ProgramFailed, match="ended with 3") as caught:
        run_logged(["sh", "-c", "seq 100; exit 3"], log=log)
    assert log.read_text().splitlines()[1:] == [str(number) for number in range(1, 101)]
    assert log.read_text().startswith("$ sh -c 'seq 100; exit 3'\n")
    assert str(caught.value).splitlines()[1:] == [f"  {number}" for number in range(93, 101)]
    assert caught.value.next_step == f"all it said is in {log}"


def test_who_is_interrupted_leaves_no_child_of_the_program():
    def interrupt(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    pids: list[int] = []
    # The child ignores every polite signal, as mmdebstrap does.
    child = "import os,signal,time; signal.signal(15, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        run_with_progress(["sh", "-c", f"{sys.executable} -c '{child}'; true"], on_line=interrupt)
    deadline = time.monotonic() + 10
    while is_alive(pids[0]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(pids[0])
