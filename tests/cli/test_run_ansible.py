"""The door to Ansible."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from kanctl.cli.run_ansible import MARK, leftovers, run_playbook
from kanctl.errors import MissingToolError


def test_the_processes_of_a_run_are_found_by_its_mark_and_others_are_not():
    words = ["/bin/sh", "-c", "echo begun; read word", "ansible-playbook"]
    environment = {**os.environ, MARK: "this"}
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        # Popen returns a moment before /proc shows the new program's words and environment.
        process.stdout.readline()
        assert leftovers("this") == [process.pid]
        assert leftovers("thi") == []
        process.stdin.close()
    assert leftovers("this") == []


def test_without_ansible_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(MissingToolError, match="wanted ansible-playbook beside") as caught:
        run_playbook(tmp_path / "site.yml", tmp_path / "hosts.yml", on_event=print)
    assert "pip install ansible-core" in caught.value.next_step


@pytest.fixture
def play(tmp_path, monkeypatch) -> Callable[[str], list[dict[str, Any]]]:
    """Runs a playbook of one task on this machine and gives its events."""
    monkeypatch.setenv("KANCTL_HOME", str(tmp_path / "home"))
    (tmp_path / "hosts.yml").write_text("all: {hosts: {here: {ansible_connection: local}}}\n")

    def run(task: str) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        (tmp_path / "play.yml").write_text(f"- hosts: all\n  gather_facts: false\n  tasks:\n    - {task}\n")
        assert run_playbook(tmp_path / "play.yml", tmp_path / "hosts.yml", on_event=events.append) == "successful"
        return events

    return run


def test_signals_and_folders_are_as_before_after_a_run(play, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    events = play("ansible.builtin.debug: {msg: hello}")

    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert "runner_on_ok" in {event["event"] for event in events}
    assert list((tmp_path / "home" / "ansible").iterdir()) == []


def test_host_keys_are_checked_whatever_the_users_environment_says(play, monkeypatch):
    monkeypatch.setenv("ANSIBLE_HOST_KEY_CHECKING", "False")
    monkeypatch.setenv("LC_ALL", "C")
    events = play("""ansible.builtin.debug: {msg: "{{ lookup('ansible.builtin.config', 'HOST_KEY_CHECKING') }}"}""")

    told = [event["event_data"]["res"]["msg"] for event in events if event["event"] == "runner_on_ok"]
    assert told == [True]
