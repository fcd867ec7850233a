"""The documents tell of every command, their links lead somewhere, and the targets that they name exist."""

import re
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from kanctl.cli.app import GROUPS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What belongs to one machine and to nobody else.
LOCAL_MARKS = re.compile(
    r"/(work|farm|opt)/(main|in|shared|wheels|steering|pypi)\b|files\.pythonhosted|deb\.debian\.org"
)


def test_every_command_is_told_of():
    text = "\n".join(page.read_text() for page in PAGES)
    for group in GROUPS:
        for command in import_module(f"kanctl.cli.commands.{group}").app.registered_commands:
            name = command.name or command.callback.__name__
            assert f"kanctl {group} {name}" in text, f"kanctl {group} {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_targets_exist(page):
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert link.startswith("http") or (page.parent / link).exists(), link
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"(?:^|`|\s{4})make ([a-z-]+)", text, re.MULTILINE):
        assert target in targets, f"make {target}"


def test_no_file_names_one_machines_paths():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
    for name in files:
        path = ROOT / name
        if path.is_file() and not path.is_symlink() and path != Path(__file__):
            assert not LOCAL_MARKS.search(path.read_text(errors="replace")), name
