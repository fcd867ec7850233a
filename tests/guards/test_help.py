"""Every command's help begins with a verb and ends with two examples that could be pasted."""

import shlex
import subprocess
import sys
from functools import cache
from importlib import import_module

import pytest

from kanctl.cli.app import GROUPS

COMMANDS = [
    (group, command.name or command.callback.__name__)
    for group in GROUPS
    for command in import_module(f"kanctl.cli.commands.{group}").app.registered_commands
]
# First words of help texts; a new one must be a verb too.
VERBS = {
    "Boot", "Bring", "Build", "Check", "Compare", "Configure", "Draw", "End", "Explain", "Find", "Leave", "Measure",
    "Open", "Print", "Prove", "Remove", "Run", "Show", "Start", "Take", "Teach", "Tell", "Try", "Turn", "Watch",
    "Write",
}  # fmt: skip


@cache
def help_of(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "kanctl.cli", *words, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", [(), *COMMANDS], ids=" ".join)
def test_help_begins_with_a_verb_and_ends_with_two_examples(command):
    lines = [line.strip() for line in help_of(*command).splitlines() if line.strip()]
    usage_end = next(index for index, line in enumerate(lines) if line.split()[0] in VERBS)
    assert usage_end <= 3, lines[:4]
    assert lines[-3] == "Examples:", lines[-4:]
    for example in lines[-2:]:
        words = shlex.split(example)
        assert words[0] == "kanctl", example
        assert (words[1], words[2]) in COMMANDS, example
        text = help_of(words[1], words[2])
        known = {word.strip(",") for line in text.splitlines() for word in line.split() if word.startswith("-")}
        used = {word.partition("=")[0] for word in words[3:] if word.startswith("-") and len(word) > 1}
        assert used <= known, example


def test_every_group_of_the_table_has_its_commands():
    assert {group for group, _ in COMMANDS} == set(GROUPS)
