"""Which modules claim a device: modules.alias of a reference kernel, matched as the kernel's own loader does. Pure.

A Debian kernel has 27,000 patterns, and a node some 400 devices; patterns are therefore kept in buckets by bus and
vendor, so that a lookup tries a few hundred.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from fnmatch import fnmatchcase

ALIAS = re.compile(r"^alias (\S+) (\S+)$")
# Bus -> how long the part is that a pattern spells out before its first wildcard, when it names a vendor.
VENDOR = re.compile(r"^(pci:v[0-9A-F]{8}|usb:v[0-9A-F]{4}|virtio:d[0-9A-F]{8}|auxiliary:[a-z0-9_]+)")


def module_name(name: str) -> str:
    """The kernel's own spelling: `nvme-core.ko` and `nvme_core` are one module."""
    return re.sub(r"\.ko(\.(xz|zst|gz))?$", "", name.rpartition("/")[2]).replace("-", "_")


class AliasTable:
    """The patterns of one kernel."""

    def __init__(self, lines: Iterable[str]) -> None:
        """Read the lines of modules.alias, as depmod writes it."""
        self._buckets: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for line in lines:
            found = ALIAS.match(line.strip())
            if found:
                pattern, module = found.groups()
                self._buckets[_bucket(pattern)].append((pattern, module_name(module)))

    def match(self, modalias: str) -> list[str]:
        """The modules that claim a device, in the order of the table; empty when none does."""
        names = dict.fromkeys([_bucket(modalias), _bus(modalias)])
        hits = (
            module
            for name in names
            for pattern, module in self._buckets.get(name, [])
            if fnmatchcase(modalias, pattern)
        )
        return list(dict.fromkeys(hits))


def _bus(text: str) -> str:
    """`acpi` of both `acpi:PNP0C09:` and the pattern `acpi*:PNP0C09:*`."""
    return text.partition(":")[0].rstrip("*")


def _bucket(text: str) -> str:
    found = VENDOR.match(text)
    return found.group() if found else _bus(text)
