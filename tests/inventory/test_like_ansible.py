"""What kanctl reads from an inventory is what Ansible reads from the same files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kanctl.inventory.errors import InventoryInvalid
from kanctl.inventory.load import load_cluster

FILES = {
    "hosts.yml": """
all:
  vars: {site_a: all, site_b: all, site_c: all, site_d: all, site_e: all, site_f: all, site_g: all, site_h: all}
  children:
    rack:
      vars: {site_b: rack, site_c: rack}
      children:
        nodes:
          vars: {site_c: nodes}
          hosts:
            n[01:03]: {site_d: range}
            n02: {site_d: second, ansible_host: 10.0.0.2}
            n01: {ansible_host: 10.0.0.1}
          children:
            late: {hosts: {n09: {ansible_host: 10.0.0.9}}}
    aaa:
      vars: {site_e: aaa, ansible_group_priority: 5}
      hosts: {n01: {site_d: aaa}, n02: {}, n09: {}}
    zzz:
      vars: {site_e: zzz}
      hosts: {n01: {}, n02: {}}
plain:
  hosts: {n03: {ansible_host: 10.0.0.3, site_h: &h {x: [1, 2]}}}
  vars: {<<: {site_f: merged}, site_g: plain}
""",
    "group_vars/all.yml": "site_a: file\nsite_i: {{ inventory_hostname }}\n".replace("{{", "'{{").replace("}}", "}}'"),
    "group_vars/all.yaml.bak": "site_a: backup\n",
    "group_vars/nodes/20-more.yml": "site_j: twenty\n",
    "group_vars/nodes/10-less": "site_j: ten\nsite_k: ten\n",
    "group_vars/nodes/.hidden.yml": "site_k: hidden\n",
    "group_vars/nodes/old.yml~": "site_k: old\n",
    "group_vars/nodes/README.md": "site_k: readme\n",
    "group_vars/nodes/deeper/x.json": '{"site_l": "deeper"}',
    "group_vars/rack.yml": "site_d: rack-file\nsite_m: rack-file\n",
    "group_vars/late.yaml": "site_m: late-file\n",
    "host_vars/n02.yml": "site_d: host-file\n",
    "host_vars/n03.json": '{"site_n": 3}',
}


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "hosts.yml"


def as_ansible_reads(path: Path) -> dict:
    words = [sys.executable, "-m", "ansible", "inventory", "--list", "-i", str(path)]
    config = path.parent / "ansible.cfg"
    config.touch()
    environment = {
        "ANSIBLE_CONFIG": str(config),
        "PATH": "/usr/bin:/bin",
        "HOME": str(path.parent),
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(words, capture_output=True, text=True, cwd=path.parent, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def members(document: dict, group: str) -> set[str]:
    found = document.get(group, {})
    return set(found.get("hosts", [])).union(*(members(document, child) for child in found.get("children", [])))


def test_hosts_and_variables_are_those_that_ansible_reads(inventory):
    document = as_ansible_reads(inventory)
    cluster = load_cluster(inventory, roles_dir=None)
    assert {node.name for node in cluster.nodes} == members(document, "nodes")
    for node in cluster.nodes:
        theirs = document["_meta"]["hostvars"][node.name]
        assert {k: v for k, v in node.variables.items() if k != "ansible_group_priority"} == {
            k: v for k, v in theirs.items() if k != "ansible_group_priority"
        }


def test_nodes_come_in_the_order_of_the_file(inventory):
    assert [node.name for node in load_cluster(inventory, roles_dir=None).nodes] == ["n01", "n02", "n03", "n09"]


def test_of_two_places_for_one_group_ansible_reads_one_and_kanctl_says_so(inventory):
    (inventory.parent / "group_vars" / "nodes.yml").write_text("site_j: never read\n")
    theirs = as_ansible_reads(inventory)["_meta"]["hostvars"]["n01"]
    assert theirs["site_j"] == "twenty"
    with pytest.raises(InventoryInvalid, match=r"wanted one place for nodes, found nodes\.yml too"):
        load_cluster(inventory, roles_dir=None)


def test_a_file_for_a_misspelt_group_is_named_since_ansible_skips_it(inventory):
    (inventory.parent / "group_vars" / "plian.yml").write_text("site_g: lost\n")
    with pytest.raises(InventoryInvalid, match="found plian; the nearest group is plain"):
        load_cluster(inventory, roles_dir=None)


def test_files_for_groups_of_another_inventory_are_left_alone(inventory):
    (inventory.parent / "group_vars" / "storage.yml").write_text("whatever: 1\n")
    assert len(load_cluster(inventory, roles_dir=None).nodes) == 4


def test_a_whole_file_in_a_vault_is_left_to_ansible(inventory):
    (inventory.parent / "group_vars" / "late.yaml").write_text("$ANSIBLE_VAULT;1.1;AES256\n3132\n")
    assert len(load_cluster(inventory, roles_dir=None).nodes) == 4
