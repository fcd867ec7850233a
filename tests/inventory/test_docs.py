"""docs/inventory.md says what is so: its example is valid, its mistakes are what is printed, its tables are whole."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kanctl.inventory.errors import InventoryInvalid
from kanctl.inventory.load import load_cluster
from kanctl.inventory.variables import known_variables

ROOT = Path(__file__).parents[2]
ROLES = ROOT / "playbooks" / "roles"
PAGE = (ROOT / "docs" / "inventory.md").read_text()
# Blocks of a page: lines that begin with four blanks.
BLOCKS = [
    re.sub(r"^ {4}", "", block, flags=re.MULTILINE) for block in re.findall(r"(?:^ {4}.*\n)+", PAGE, re.MULTILINE)
]


def test_the_example_is_valid(tmp_path):
    (tmp_path / "hosts.yml").write_text(BLOCKS[0])
    assert [node.name for node in load_cluster(tmp_path / "hosts.yml", ROLES).nodes] == ["node1", "node2"]


def test_the_mistakes_are_those_that_are_printed(tmp_path, monkeypatch):
    text = (
        "all:\n  vars:\n    kanctl_shared_dir: srv\n    kanctl_cluster_nam: x\n  children:\n    nodes:\n      hosts:\n"
        "        node1: {ansible_host: 10.0.0.1}\n        node2: {ansible_host: 10.0.0.1}\n"
    )
    (tmp_path / "hosts.yml").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InventoryInvalid) as caught:
        load_cluster(Path("hosts.yml"), ROLES)
    assert BLOCKS[1].strip() == str(caught.value)


def test_every_variable_is_named():
    assert [name for name in known_variables(ROLES) if f"`{name}`" not in PAGE] == []


def test_the_table_of_the_roles_says_what_their_specs_say():
    rows = []
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        options = yaml.safe_load(path.read_text())["argument_specs"]["main"].get("options", {})
        rows += [f"| `{k}` | {v['type']} | {' '.join(v['description'].split())} |" for k, v in options.items()]
    section = PAGE.partition("## Variables of the roles")[2]
    assert [line for line in section.splitlines() if line.startswith("| `")] == rows


@pytest.mark.parametrize("verb", ["check", "show"])
def test_every_key_of_the_json_is_named(verb):
    example = ROOT / "inventory" / "examples" / "h200-pair" / "hosts.yml"
    command = [sys.executable, "-m", "kanctl.cli", "inventory", verb, "--inventory", str(example), "--json"]
    document = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)

    def keys(value: object) -> set[str]:
        below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        return (set(value) if isinstance(value, dict) else set()).union(*map(keys, below))

    section = PAGE.partition("## JSON")[2].partition("##")[0]
    assert {key for key in keys(document) if f"`{key}`" not in section} == set()
