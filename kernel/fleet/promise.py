"""The promise of a fleet-made kernel: every device that works today works with it, or the node and device are named.

Pure. Judged on the finished configuration, not on what was asked for, because the kernel's tools may have dropped it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .aliases import module_name
from .policy import Policy
from .reference import Reference
from .resolve import claimed_by

# On these buses a device with an unknown driver stops the build; elsewhere (platform, ACPI tables) it is only named.
STRICT_BUSES = ("pci", "usb", "virtio", "auxiliary", "scsi")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A device that a node would lose, or of which nobody knows."""

    node: str
    device: str
    driver: str
    why: str
    stops: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What was found for all devices that have a driver today."""

    nodes: tuple[str, ...]
    kept: int
    losses: tuple[Loss, ...]
    # Drivers from elsewhere, which the driver gate builds: module -> nodes.
    out_of_tree: Mapping[str, tuple[str, ...]]

    @property
    def broken(self) -> tuple[Loss, ...]:
        """The losses that stop a build."""
        return tuple(loss for loss in self.losses if loss.stops)


def judge(
    nodes: Mapping[str, Mapping[str, Any]], reference: Reference, policy: Policy, config: Mapping[str, str]
) -> Promise:
    """What every node would keep and lose with a finished configuration (symbol -> value)."""
    kept = 0
    losses = []
    foreign: dict[str, dict[str, None]] = {}
    for name, facts in nodes.items():
        for device in facts["devices"]:
            module = module_name(device.get("module") or "")
            if not device.get("driver") or module in policy.may_lose:
                continue
            if module and module not in reference.depends and module not in reference.builtin:
                foreign.setdefault(module, {})[name] = None
                continue
            why = _why_lost(device, reference, policy, config)
            kept += why is None
            if why is not None:
                losses.append(_loss(name, device, *why))
    out_of_tree = {module: tuple(names) for module, names in foreign.items()}
    return Promise(nodes=tuple(nodes), kept=kept, losses=tuple(losses), out_of_tree=out_of_tree)


def _why_lost(
    device: Mapping[str, Any], reference: Reference, policy: Policy, config: Mapping[str, str]
) -> tuple[str, bool] | None:
    """(reason, whether it is certain) where a device has no driver in the configuration; None where it has one."""
    driver = device["driver"]
    modules = [name for name in claimed_by(device, reference) if name not in policy.deny]
    own = module_name(device.get("module") or driver)
    if own in reference.symbols:
        modules = [own, *modules]
    symbols = [symbol for name in modules for symbol in reference.symbols.get(name, ())]
    symbols += [policy.builtin[driver]] if driver in policy.builtin else []
    if any(config.get(symbol, "n") in {"y", "m"} for symbol in symbols):
        return None
    if symbols:
        return f"none of {_shown(symbols)} is on", True
    return "its driver is built in today, and no module or symbol of that name is known", False


def _loss(node: str, device: Mapping[str, Any], why: str, is_certain: bool) -> Loss:
    bus = (device.get("modalias") or "").partition(":")[0]
    return Loss(
        node=node,
        device=device["path"],
        driver=device["driver"],
        why=why,
        stops=is_certain or bus in STRICT_BUSES,
    )


def _shown(symbols: Sequence[str]) -> str:
    unique = list(dict.fromkeys(symbols))
    return ", ".join(unique[:3]) + (" ..." if len(unique) > 3 else "")
