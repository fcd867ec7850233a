"""The lab finds a network nobody uses, and writes rules that can be written twice."""

import json
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from kanctl.lab import network
from kanctl.lab.errors import LabError
from kanctl.lab.state import LabPaths

PATHS = LabPaths(name="demo", state_root=Path("/var/lib/kanctl"))


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ([], "10.73.0.0/24"),
        (["192.168.1.0/24", "10.73.0.0/24"], "10.73.1.0/24"),
        (["10.73.0.0/22"], "10.73.4.0/24"),
        (["10.73.0.7/32", "10.73.1.128/25"], "10.73.2.0/24"),
    ],
)
def test_the_first_free_subnet_is_taken(taken, expected):
    assert str(network.choose_subnet(IPv4Network(text) for text in taken)) == expected


def test_a_machine_with_all_of_10_in_use_is_told_so():
    with pytest.raises(LabError, match="wanted a free network"):
        network.choose_subnet([IPv4Network("10.0.0.0/8")])


def test_addresses_of_nodes_and_cables_are_fixed():
    assert network.gateway("10.73.5.0/24") == "10.73.5.1"
    assert network.node_address("10.73.5.0/24", 1) == "10.73.5.11"
    assert network.hardware_address("10.73.5.0/24", 2) == "02:4b:43:05:00:02"


def test_rules_replace_the_table_of_the_same_name_only():
    rules = network.nft_rules(PATHS, "10.73.5.0/24")
    assert rules.index("delete table ip kanctl_demo") < rules.index("masquerade")
    assert 'ip saddr 10.73.5.0/24 oifname != "kc-demo" masquerade' in rules


def test_a_firewall_that_drops_forwarded_packets_is_named():
    chain = {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}
    accepting = chain | {"policy": "accept", "name": "other"}
    incoming = chain | {"hook": "input"}
    plain = {"family": "ip", "table": "filter", "name": "DOCKER"}
    ruleset = json.dumps({"nftables": [{"metainfo": {}}, *[{"chain": c} for c in (chain, accepting, incoming, plain)]]})
    assert network.dropping_chains(ruleset) == ["ip filter FORWARD"]


def test_names_on_the_host_fit_into_linux_and_into_one_lab():
    longest = LabPaths(name="abcdefgh", state_root=Path("/x"))
    assert len(longest.node(50).host_interface) <= 15
    assert PATHS.netns_pattern.fullmatch(PATHS.node(3).netns)
    assert not PATHS.netns_pattern.fullmatch(LabPaths(name="demo2", state_root=Path("/x")).node(3).netns)
