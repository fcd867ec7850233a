"""The inventory of a lab is an ordinary one that the inventory reader accepts."""

from pathlib import Path

import yaml

from kanctl.inventory.load import load_cluster
from kanctl.lab.inventory_file import inventory_text, known_hosts_text
from kanctl.lab.state import LabRecord

RECORD = LabRecord(
    name="demo", subnet="10.73.5.0/24", node_count=2, hardware={"node2": "h200-x8"}, rootfs="/cache/rootfs-1"
)
KNOWN_HOSTS = Path("/var/lib/kanctl/demo/ssh/known_hosts")
PRIVATE_KEY = Path("/var/lib/kanctl/demo/ssh/id_ed25519")


def text() -> str:
    return inventory_text(RECORD, known_hosts=KNOWN_HOSTS, private_key=PRIVATE_KEY)


def test_inventory_names_nodes_in_order_with_their_addresses():
    nodes = yaml.safe_load(text())["all"]["children"]["nodes"]["hosts"]
    assert list(nodes) == ["node1", "node2"]
    assert nodes["node1"] == {"ansible_host": "10.73.5.11"}
    assert nodes["node2"] == {"ansible_host": "10.73.5.12", "kanctl_recorded_hardware": "h200-x8"}


def test_host_keys_are_checked_against_the_labs_own_file():
    variables = yaml.safe_load(text())["all"]["vars"]
    assert variables["kanctl_known_hosts_file"] == str(KNOWN_HOSTS)
    assert f"UserKnownHostsFile={KNOWN_HOSTS}" in variables["ansible_ssh_common_args"]
    assert "StrictHostKeyChecking=yes" in variables["ansible_ssh_common_args"]


def test_the_inventory_reader_accepts_it(tmp_path):
    path, known_hosts, private_key = (tmp_path / name for name in ("hosts.yml", "known_hosts", "id_ed25519"))
    known_hosts.touch()
    private_key.touch()
    path.write_text(inventory_text(RECORD, known_hosts=known_hosts, private_key=private_key))
    cluster = load_cluster(path, roles_dir=None)
    assert [(node.name, node.address) for node in cluster.nodes] == [("node1", "10.73.5.11"), ("node2", "10.73.5.12")]
    assert cluster.shared_dir == "/srv/kanctl"


def test_known_hosts_hold_address_kind_and_key_without_the_comment():
    assert known_hosts_text({"10.73.5.11": "ssh-ed25519 AAAA kanctl-demo-node1\n"}) == "10.73.5.11 ssh-ed25519 AAAA\n"
