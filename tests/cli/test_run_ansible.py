"""The door to Ansible."""

import os
import signal
import subprocess
import sys

import pytest

from kanctl.cli.run_ansible import MARK, leftovers, run_playbook
from kanctl.errors import MissingToolError


def test_the_processes_of_a_run_are_found_by_its_mark_and_others_are_not():
    words = [sys.executable, "-c", "input()", "ansible-playbook"]
    with subprocess.Popen(words, env={**os.environ, MARK: "this"}, stdin=subprocess.PIPE) as process:
        # Its environment is there once it has been executed, which Popen waits for.
        assert leftovers("this") == [process.pid]
        assert leftovers("thi") == []
        process.stdin.close()
    assert leftovers("this") == []


def test_without_ansible_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(MissingToolError, match="wanted ansible-playbook beside") as caught:
        run_playbook(tmp_path / "site.yml", tmp_path / "hosts.yml", on_event=print)
    assert "pip install ansible-core" in caught.value.next_step


def test_signals_and_folders_are_as_before_after_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("KANCTL_HOME", str(tmp_path / "home"))
    (tmp_path / "play.yml").write_text(
        "- hosts: all\n  gather_facts: false\n  tasks:\n    - ansible.builtin.debug: {msg: hello}\n"
    )
    (tmp_path / "hosts.yml").write_text("all: {hosts: {here: {ansible_connection: local}}}\n")
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    events: list[dict[str, object]] = []

    assert run_playbook(tmp_path / "play.yml", tmp_path / "hosts.yml", on_event=events.append) == "successful"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert "runner_on_ok" in {event["event"] for event in events}
    assert list((tmp_path / "home" / "ansible").iterdir()) == []
