"""Every role has the parts that a role has, and its defaults say the same as its argument specs and its README."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

ROLES = Path(__file__).parents[2] / "playbooks/roles"
NAMES = sorted(path.name for path in ROLES.iterdir() if path.is_dir())
PARTS = [
    "defaults/main.yml",
    "meta/argument_specs.yml",
    "meta/main.yml",
    "tasks/main.yml",
    "tasks/verify.yml",
    "handlers/main.yml",
    "molecule/default/molecule.yml",
    "molecule/default/converge.yml",
    "README.md",
]
per_role = pytest.mark.parametrize("role", NAMES)


def options_of(role: str) -> dict:
    specs = yaml.safe_load((ROLES / role / "meta/argument_specs.yml").read_text())
    return specs["argument_specs"]["main"]["options"]


def tasks_of(role: str) -> list[tuple[Path, dict]]:
    return [
        (path, task)
        for folder in ("tasks", "handlers")
        for path in sorted((ROLES / role / folder).glob("*.yml"))
        for task in yaml.safe_load(path.read_text())
    ]


@per_role
@pytest.mark.parametrize("part", PARTS)
def test_a_role_has_every_part(role, part):
    assert (ROLES / role / part).is_file()


@per_role
def test_defaults_and_specs_name_the_same_options_with_the_same_values(role):
    defaults = yaml.safe_load((ROLES / role / "defaults/main.yml").read_text())
    options = options_of(role)
    assert defaults.keys() == options.keys()
    # A default that is made from facts, or a long list, is told in words there.
    plain = {name: value for name, value in options.items() if "default" in value and "{{" not in str(defaults[name])}
    assert {name: defaults[name] for name in plain} == {name: value["default"] for name, value in plain.items()}
    assert all(name.startswith(f"{role}_") and spec["description"] for name, spec in options.items())


@per_role
def test_every_default_has_a_comment_above_it(role):
    lines = (ROLES / role / "defaults/main.yml").read_text().splitlines()
    for above, line in pairwise(lines):
        assert not re.match(r"^[a-z_]+:", line) or above.startswith("#"), line


@per_role
def test_the_readme_has_a_row_for_every_variable(role):
    text = (ROLES / role / "README.md").read_text()
    assert "| variable | type | default | meaning |" in text
    assert [name for name in options_of(role) if f"| `{name}` |" not in text] == []


@per_role
def test_task_files_are_short(role):
    for path in (ROLES / role / "tasks").glob("*.yml"):
        assert len(path.read_text().splitlines()) < 60, path


@per_role
def test_only_an_allowed_reboot_restarts_a_node(role):
    for path, task in tasks_of(role):
        if "ansible.builtin.reboot" in task:
            assert path.parent.name == "handlers"
            assert f"{role}_allow_reboot | bool" in task["when"]


@per_role
def test_a_command_says_when_it_changes_something(role):
    for path, task in tasks_of(role):
        for step in [task, *task.get("block", [])]:
            is_command = "ansible.builtin.command" in step
            creates = is_command and "creates" in step["ansible.builtin.command"]
            assert not is_command or creates or "changed_when" in step, f"{path}: {step['name']}"
            assert "ansible.builtin.shell" not in step
            assert "ignore_errors" not in step
