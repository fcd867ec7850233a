"""Every role has the parts that a role has, and its defaults say the same as its argument specs and its README."""

import re
from importlib.util import module_from_spec, spec_from_file_location
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

# The script that writes the READMEs' tables; tests are no package, so it is imported by its path.
_spec = spec_from_file_location("readme_tables", Path(__file__).with_name("readme_tables.py"))
assert _spec is not None
assert _spec.loader is not None
tables = module_from_spec(_spec)
_spec.loader.exec_module(tables)

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
ROLES = PLAYBOOKS / "roles"
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
# A name tells the state that is left; these words begin one that tells an action.
ACTIONS = re.compile(
    r"^(add|apply|assert|build|change|check|clean|configure|copy|create|delete|disable|download|enable|ensure|fetch|find"
    r"|flush|gather|get|include|install|load|look|make|print|put|query|read|reboot|reload|remove|restart|run|set|show"
    r"|start|stop|switch|template|unpack|update|upgrade|verify|wait|write)(?![\w-])",
    re.IGNORECASE,
)
per_role = pytest.mark.parametrize("role", NAMES)


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
    options = tables.options_of(role)
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
def test_the_readme_has_the_table_that_the_specs_make(role):
    text = (ROLES / role / "README.md").read_text()
    assert text == tables.with_table(text, tables.table_of(role)), "python tests/playbooks/readme_tables.py --write"


def test_a_readme_without_a_table_is_refused():
    with pytest.raises(ValueError, match="wanted the line"):
        tables.with_table("# role\n", "")


def names_of(entries: list[dict]) -> list[str]:
    """The names of plays, tasks and the tasks of blocks; one without a name is the empty word."""
    names = [str(entry.get("name", "")) for entry in entries]
    for entry in entries:
        for block in ("tasks", "block", "rescue", "always"):
            names += names_of(entry.get(block, []))
    return names


@pytest.mark.parametrize("path", sorted(PLAYBOOKS.glob("*.yml")), ids=lambda path: path.name)
def test_plays_are_named_as_the_state_they_leave(path):
    names = names_of(yaml.safe_load(path.read_text()))
    assert [name for name in names if not name or ACTIONS.match(name)] == []


@per_role
def test_tasks_are_named_as_the_state_they_leave(role):
    names = names_of([task for _, task in tasks_of(role)])
    assert [name for name in names if not name or ACTIONS.match(name)] == []


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
            says = is_command and {"creates", "removes"} & step["ansible.builtin.command"].keys()
            assert not is_command or says or "changed_when" in step, f"{path}: {step['name']}"
            assert "ansible.builtin.shell" not in step
            assert "ignore_errors" not in step
