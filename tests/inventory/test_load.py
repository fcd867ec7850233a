"""An inventory is read as Ansible reads it, and every mistake in it is named at its line."""

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kanctl.inventory import Gpu, Nic
from kanctl.inventory.errors import InventoryInvalid
from kanctl.inventory.groups import expand_range
from kanctl.inventory.load import load_cluster

ROOT = Path(__file__).parents[2]
ROLES = ROOT / "playbooks" / "roles"
CASES = yaml.safe_load((Path(__file__).parent / "mistakes.yml").read_text())


def write(folder: Path, text: str, name: str = "hosts.yml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def mistakes_of(path: Path) -> list[str]:
    with pytest.raises(InventoryInvalid) as caught:
        load_cluster(path, ROLES)
    return [f"{mistake.line}: {mistake.text}" for mistake in caught.value.mistakes]


@pytest.mark.parametrize("case", CASES, ids=[case["promise"] for case in CASES])
def test_every_mistake_is_named_at_its_line(case, tmp_path):
    found = mistakes_of(write(tmp_path, case["text"]))
    assert len(found) == len(case["wanted"]), found
    for wanted in case["wanted"]:
        line, _, words = wanted.partition(": ")
        assert any(text.startswith(f"{line}: ") and words in text for text in found), (wanted, found)


@pytest.mark.parametrize("name", ["two-nodes", "h200-pair"])
def test_the_examples_are_valid(name):
    cluster = load_cluster(ROOT / "inventory" / "examples" / name / "hosts.yml", ROLES)
    assert (cluster.name, len(cluster.nodes), cluster.shared_dir) == (name, 2, "/srv/kanctl")


def test_gpus_and_nics_come_as_values_with_units():
    cluster = load_cluster(ROOT / "inventory" / "examples" / "h200-pair" / "hosts.yml", ROLES)
    node = cluster.node("h200-b")
    assert node.gpus == (Gpu(model="NVIDIA H200", count=8, memory_gib=141),)
    assert node.gpu_count == 8
    assert node.nics == (Nic(name="ib0", speed_gbps=400, kind="infiniband"),)
    assert (node.address, node.user, node.port) == ("10.0.1.12", "ops", 22)


def test_variables_merge_in_ansibles_order(tmp_path):
    hosts = "        {name}: {{ansible_host: 10.0.0.{last}}}\n"
    text = (
        "all:\n  vars: {site_a: all, site_b: all, site_c: all, site_d: all, site_e: all}\n"
        "  children:\n    nodes:\n      vars: {site_b: group, site_c: group}\n      hosts:\n"
        + hosts.format(name="n1", last=1)
        + hosts.format(name="n2", last=2).replace("}", ", site_d: host, site_e: host}")
    )
    path = write(tmp_path, text)
    write(tmp_path, "site_a: all-file\nsite_b: all-file\n", "group_vars/all.yml")
    write(tmp_path, "site_c: group-file\n", "group_vars/nodes.yml")
    write(tmp_path, "site_e: host-file\n", "host_vars/n2.yml")
    one, two = load_cluster(path, ROLES).nodes
    assert {k: v for k, v in one.variables.items() if k.startswith("site_")} == {
        "site_a": "all-file", "site_b": "all-file", "site_c": "group-file", "site_d": "all", "site_e": "all",
    }  # fmt: skip
    assert (two.variables["site_d"], two.variables["site_e"]) == ("host", "host-file")


def test_values_kept_in_a_vault_are_not_looked_into(tmp_path):
    text = (
        "all:\n  vars:\n    ansible_become_password: !vault |\n      $ANSIBLE_VAULT;1.1;AES256\n      6162\n"
        "  children: {nodes: {hosts: {n1: {ansible_host: 10.0.0.1}}}}\n"
    )
    assert load_cluster(write(tmp_path, text), ROLES).nodes[0].name == "n1"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("node[1:3]", ["node1", "node2", "node3"]),
        ("node[01:03]", ["node01", "node02", "node03"]),
        ("r[a:b]n[1:2]", ["ran1", "ran2", "rbn1", "rbn2"]),
        ("n[0:6:3]", ["n0", "n3", "n6"]),
        ("plain", ["plain"]),
        ("n[0:9]x[0:99]", [f"n{rack}x{place}" for rack in range(10) for place in range(100)]),
        ("n[0:10]x[0:99]", ["n[0:10]x[0:99]"]),
    ],
)
def test_ranges_stand_for_their_names(pattern, names):
    assert expand_range(pattern) == names


def test_a_missing_file_a_folder_and_no_text_are_mistakes_not_crashes(tmp_path):
    assert "wanted a readable YAML file" in mistakes_of(tmp_path / "none.yml")[0]
    assert "wanted a readable YAML file" in mistakes_of(tmp_path)[0]
    binary = tmp_path / "binary.yml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in mistakes_of(binary)[0]


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["all", "children", "hosts", "vars", "nodes", "n1", "ansible_host", "kanctl_gpus", "model", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES)
def test_no_tree_at_all_makes_anything_but_a_cluster_or_a_list_of_mistakes(tree, tmp_path):
    path = write(tmp_path, yaml.safe_dump(tree))
    mistakes = None
    try:
        assert load_cluster(path, ROLES).nodes
    except InventoryInvalid as error:
        mistakes = error.mistakes
    assert mistakes is None or len(mistakes) > 0


# Pieces that mean something to YAML or to the loader; put anywhere into a good file.
PIECES = st.sampled_from(
    ["*a", "&a ", "<<: ", "!vault ", "!!int ", "!!timestamp ", "!!bool ", "!!set ", "!x ", "~", "[", "]", "{", "}",
     ": ", "- ", '"', "'", "\t", "\n", "|", "%", "? ", ",", "1e9", ".inf", "2024-13-01", "1:20", "yes", "all", "nodes",
     "hosts", "vars", "children", "[1:3]", "{{ x }}", "\0", "\u2028", "---\n", "#", "ansible_host", "9" * 5000],
)  # fmt: skip
EXAMPLE = (ROOT / "inventory" / "examples" / "h200-pair" / "hosts.yml").read_text()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, len(EXAMPLE)), PIECES, st.integers(0, 4)), min_size=1, max_size=4))
def test_no_damage_to_a_good_file_makes_anything_but_a_cluster_or_a_list_of_mistakes(changes, tmp_path):
    text = EXAMPLE
    for place, piece, removed in changes:
        text = text[:place] + piece + text[place + removed :]
    mistakes = None
    try:
        assert load_cluster(write(tmp_path, text), ROLES).nodes
    except InventoryInvalid as error:
        mistakes = error.mistakes
    assert mistakes is None or len(mistakes) > 0


def test_the_example_with_gpus_sets_what_the_gpu_roles_read():
    variables = load_cluster(ROOT / "inventory" / "examples" / "h200-pair" / "hosts.yml", ROLES).nodes[0].variables
    prefixes = ("kanctl_gpus", "kanctl_nics", "node_tuning_", "nvidia_driver_", "nvidia_tuning_")
    assert [prefix for prefix in prefixes if not any(name.startswith(prefix) for name in variables)] == []
