"""The lab's network: a bridge on the host, a network namespace and a cable per node, and the way out through nft.

Shown by `ip -br link`, `ip netns`, `nft list table ip kanctl_<lab>`.
"""

import ipaddress
import json
import os
from collections.abc import Iterable
from ipaddress import IPv4Network
from pathlib import Path

from . import tools
from .errors import LabError
from .state import LabPaths, NodePaths

NETNS_DIR = Path("/run/netns")
INTERFACE_IN_NODE = "eth0"


def choose_subnet(taken: Iterable[IPv4Network]) -> IPv4Network:
    """The first free 10.73.N.0/24. Raises LabError when all 256 overlap a network in use."""
    used = list(taken)
    for number in range(256):
        subnet = IPv4Network(f"10.73.{number}.0/24")
        if not any(subnet.overlaps(network) for network in used):
            return subnet
    raise LabError(
        "wanted a free network in 10.73.0.0/16, found each of its 256 in use", "kanctl lab down on an old lab"
    )


def gateway(subnet: str) -> str:
    """The host's own address on the lab's bridge."""
    return str(IPv4Network(subnet)[1])


def node_address(subnet: str, index: int) -> str:
    """The address of node number `index`, from 1."""
    return str(IPv4Network(subnet)[10 + index])


def hardware_address(subnet: str, index: int) -> str:
    """A fixed MAC for a node (0: the bridge): with a new one a replaced cable is dead until ARP forgets the old."""
    return f"02:4b:43:{IPv4Network(subnet)[0].packed[2]:02x}:00:{index:02x}"


def networks_in_use() -> list[IPv4Network]:
    """Every IPv4 network that the host has a route to, default routes left out. Shown by `ip route show table all`."""
    routes = json.loads(tools.run(["ip", "-4", "-j", "route", "show", "table", "all"]) or "[]")
    found = []
    for route in routes:
        destination = str(route.get("dst", "default"))
        try:
            network = IPv4Network(destination, strict=False)
        except ipaddress.AddressValueError:
            continue  # "default" and named destinations.
        if network.prefixlen > 0:
            found.append(network)
    return found


def ensure_bridge(paths: LabPaths, subnet: str) -> None:
    """The lab's bridge is up, has its address, and nodes reach the outside through it."""
    if not _link_exists(paths.bridge):
        tools.run(["ip", "link", "add", paths.bridge, "address", hardware_address(subnet, 0), "type", "bridge"])
    prefix = IPv4Network(subnet).prefixlen
    tools.run(["ip", "addr", "replace", f"{gateway(subnet)}/{prefix}", "dev", paths.bridge])
    tools.run(["ip", "link", "set", paths.bridge, "up"])
    tools.run(["nft", "-f", "-"], stdin=nft_rules(paths, subnet))


def nft_rules(paths: LabPaths, subnet: str) -> str:
    """One transaction that leaves exactly the lab's table, whatever was there under its name."""
    table = paths.nft_table
    return f"""\
table ip {table} {{ }}
delete table ip {table}
table ip {table} {{
    chain way_out {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {subnet} oifname != "{paths.bridge}" masquerade
    }}
}}
"""


def dropping_chains(ruleset: str) -> list[str]:
    """Chains that drop what the host forwards unless a rule of theirs says otherwise, from `nft -j list chains`.

    The lab cannot overrule them: a packet must pass every chain. Docker's `filter FORWARD` is the usual one.
    """
    chains = [item["chain"] for item in json.loads(ruleset)["nftables"] if "chain" in item]
    return [
        f"{chain['family']} {chain['table']} {chain['name']}"
        for chain in chains
        if chain.get("hook") == "forward" and chain.get("policy") == "drop" and chain["family"] in {"ip", "inet"}
    ]


def ensure_node_link(node: NodePaths, subnet: str) -> None:
    """The node's network namespace exists, with a cable to the bridge, its address and its default route."""
    if not _netns_works(node.netns):
        # A crash can leave the name without the namespace.
        (NETNS_DIR / node.netns).unlink(missing_ok=True)
        tools.run(["ip", "netns", "add", node.netns])
    inside = ["ip", "-n", node.netns]
    if not _link_exists(node.host_interface):
        address = hardware_address(subnet, node.index)
        peer = ["peer", "name", INTERFACE_IN_NODE, "address", address, "netns", node.netns]
        tools.run(["ip", "link", "add", node.host_interface, "type", "veth", *peer])
    tools.run(["ip", "link", "set", node.host_interface, "master", node.lab.bridge, "up"])
    prefix = IPv4Network(subnet).prefixlen
    address = node_address(subnet, node.index)
    tools.run([*inside, "addr", "replace", f"{address}/{prefix}", "dev", INTERFACE_IN_NODE])
    tools.run([*inside, "link", "set", "lo", "up"])
    tools.run([*inside, "link", "set", INTERFACE_IN_NODE, "up", "mtu", str(_way_out_mtu())])
    tools.run([*inside, "route", "replace", "default", "via", gateway(subnet)])


def remove(paths: LabPaths) -> None:
    """Leave no cable, namespace, bridge or nft table of the lab."""
    for link in _links():
        prefix, _, index = link.rpartition("-")
        if prefix == paths.bridge and index.isdigit():
            tools.run(["ip", "link", "delete", link])
    for name in netns_names(paths):
        if _netns_works(name):
            tools.run(["ip", "netns", "delete", name])
        else:
            (NETNS_DIR / name).unlink(missing_ok=True)
    if _link_exists(paths.bridge):
        tools.run(["ip", "link", "delete", paths.bridge])
    if f"table ip {paths.nft_table}\n" in tools.run(["nft", "list", "tables"]):
        tools.run(["nft", "delete", "table", "ip", paths.nft_table])


def netns_names(paths: LabPaths) -> list[str]:
    """The lab's network namespaces by name, also ones whose namespace is gone."""
    names = [path.name for path in NETNS_DIR.iterdir()] if NETNS_DIR.is_dir() else []
    return sorted(name for name in names if paths.netns_pattern.fullmatch(name))


def lab_bridges() -> list[str]:
    """The bridges of every lab on this machine, whoever's state folder they belong to."""
    return [link for link in _links() if link.startswith("kc-") and link.count("-") == 1]


def _links() -> list[str]:
    return sorted(os.listdir("/sys/class/net"))


def _link_exists(name: str) -> bool:
    return name in _links()


def _netns_works(name: str) -> bool:
    if not (NETNS_DIR / name).exists():
        return False
    return "lo" in tools.run(["ip", "-n", name, "link", "show"], ok_codes=(0, 1, 255))


def _way_out_mtu() -> int:
    """The MTU of the host's default route: on a host behind a tunnel a node with a larger one loses big packets."""
    routes = json.loads(tools.run(["ip", "-4", "-j", "route", "show", "default"]) or "[]")
    devices = [str(route["dev"]) for route in routes if "dev" in route]
    if not devices:
        return 1500
    return min(1500, int(Path(f"/sys/class/net/{devices[0]}/mtu").read_text()))
