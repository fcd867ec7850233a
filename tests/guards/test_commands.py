"""Lines that users paste, from help and from the documents, parse; and all commands share the same manners."""

import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from kanctl.cli.app import GROUPS, build_app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "playbooks").rglob("*.md"))]
per_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
# A line of a block; what follows a shell's own sign is not kanctl's.
PASTEABLE = re.compile(r"^(?: {4}|\$ )(kanctl [^|;&>`\n]+)", re.MULTILINE)
IN_TEXT = re.compile(r"`kanctl ([a-z]+ [a-z-]+)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# Verbs that never change anything.
READING = {"check", "diff", "drift", "evaluate", "history", "list", "plan", "show", "status", "view"}


def test_examples_in_help_parse_and_are_two_of_the_command_itself(commands, parse):
    for name, command in commands.items():
        lines = [line.strip() for line in command.epilog.partition("Examples:")[2].splitlines() if line.strip()]
        assert len(set(lines)) == 2, name
        for line in lines:
            assert shlex.split(line)[1:3] == name.split(), line
            parse(line)


def test_examples_of_the_first_help_parse(parse):
    lines = [line.strip() for line in build_app([]).info.epilog.splitlines() if line.strip()][1:]
    assert len(lines) == 2
    for line in lines:
        parse(line)


@per_page
def test_lines_to_paste_from_a_page_parse(page, parse):
    for line in PASTEABLE.findall(page.read_text()):
        # <run> and the like stand for a name.
        parse(re.sub(r"<([a-z-]+)>", r"\1", line))


@per_page
def test_commands_that_a_page_names_exist(page, commands):
    groups = {name.split()[0] for name in commands}
    named = {name for name in IN_TEXT.findall(page.read_text()) if name.split()[0] in groups}
    assert named <= set(commands)


@per_page
def test_links_of_a_page_lead_somewhere(page):
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link and not link.startswith("#")]
    assert [link for link in links if not (page.parent / link.partition("#")[0]).exists()] == []


def test_a_line_with_an_unknown_option_does_not_parse(parse):
    with pytest.raises(Exception, match="--nodez"):
        parse("kanctl lab up --nodez 2")


def test_reading_commands_take_json(commands):
    reading = {name: command for name, command in commands.items() if name.split()[1] in READING}
    assert reading
    for name, command in reading.items():
        assert "--json" in {word for option in command.params for word in option.opts}, name


def test_every_option_says_what_it_is_for(commands):
    silent = [
        f"{name} {option.name}"
        for name, command in commands.items()
        for option in command.params
        if not getattr(option, "help", "")
    ]
    assert not silent


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_says_the_same_in_the_first_help_and_in_its_own(group):
    assert import_module(f"kanctl.cli.commands.{group}").app.info.help == GROUPS[group]


@pytest.mark.parametrize("words", [["nothing"], ["lab", "nothing"], ["lab", "up", "--nothing"]], ids=" ".join)
def test_an_unknown_group_command_or_option_ends_with_2(words):
    done = subprocess.run([sys.executable, "-m", "kanctl.cli", *words], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "nothing" in done.stderr
