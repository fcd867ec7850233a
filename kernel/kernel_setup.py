"""What conditions are asked about: a node as it runs, or a profile as it would be built. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .fragment import Request
from .modprobe import Option, parse_options, read_options, split_arguments
from .profile import Profile
from .version import parse_release

# Debian names its kernels by ABI (6.1.0-49), and the version that fixes count from stands behind it.
DEBIAN_VERSION = re.compile(r"\bDebian (\d+\.\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Nvidia:
    """The loaded NVIDIA driver: its version, and whether its kernel modules are the open ones."""

    version: str
    is_open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One kernel with everything that conditions may ask of it.

    `config` is None where it could not be read. `is_running` says whether loaded modules, live parameters and drivers
    are those of a running node; of a kernel that is only planned they are unknown.
    """

    version: tuple[int, ...]
    config: Mapping[str, str] | None
    arguments: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    is_running: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)
    loaded: frozenset[str] = frozenset()
    nvidia: Nvidia | None = None
    has_peermem_symbols: bool | None = None
    # Of a profile: what was asked for, what ended off, which symbols are waived by name, and its other promises.
    requested: Mapping[str, str] = field(default_factory=dict)
    switched_off: frozenset[str] = frozenset()
    waived: frozenset[str] = frozenset()
    flags: frozenset[str] = frozenset()
    expects: frozenset[str] = frozenset()
    # Boot arguments whose values come later, from the inventory.
    deferred: frozenset[str] = frozenset()
    cpu_count: int | None = None


def node_setup(facts: Mapping[str, Any]) -> Setup:
    """A node of a fleet file, as it runs."""
    nvidia = facts.get("nvidia")
    return Setup(
        version=node_version(facts),
        config=facts["config"],
        arguments=split_arguments(facts["cmdline"]),
        options=read_options(facts["modprobe"]),
        is_running=True,
        parameters=facts["parameters"],
        loaded=frozenset([*facts["loaded"], *facts.get("builtin", [])]),
        nvidia=Nvidia(version=nvidia["version"], is_open=nvidia["open"]) if nvidia else None,
        has_peermem_symbols=facts.get("ib_core_peermem"),
        flags=frozenset({"gpu"} if nvidia or _has_nvidia_device(facts) else ()),
    )


def node_version(facts: Mapping[str, Any]) -> tuple[int, ...]:
    """The version of a node's kernel, by which fixes are counted."""
    found = DEBIAN_VERSION.search(facts.get("version", ""))
    return parse_release(found.group(1) if found else facts["release"])


def profile_setup(
    profile: Profile,
    version: tuple[int, ...],
    requests: Mapping[str, Request],
    config: Mapping[str, str],
    arguments: Iterable[str],
    *,
    switched_off: Iterable[str] = (),
    deferred: Iterable[str] = (),
) -> Setup:
    """A profile with its finished configuration and command line, before anything is compiled.

    Args:
        switched_off: symbols that the finished .config has as `is not set`, requested or not.
        deferred: names of boot arguments that the inventory fills in later, such as nohz_full.
    """
    return Setup(
        version=version,
        config=config,
        arguments=tuple(arguments),
        options=tuple(
            option
            for row in profile.modprobe
            for option in parse_options(f"options {row.option}", f"profile {profile.name}")
        ),
        # What we build has the kernel's own ib_core; MOFED's and DOCA's come later, if at all.
        has_peermem_symbols=False,
        requested={symbol: request.value for symbol, request in requests.items()},
        switched_off=frozenset(switched_off),
        waived=frozenset(profile.waived(version)),
        flags=frozenset({"gpu"} if profile.gpu else ()),
        expects=frozenset(name.replace("-", "_") for name in profile.expect_modules),
        deferred=frozenset(deferred),
    )


def _has_nvidia_device(facts: Mapping[str, Any]) -> bool:
    """Whether a device of NVIDIA's is a display or 3D controller, with or without a driver."""
    return any(re.match(r"pci:v000010DEd.*bc03", device["modalias"]) for device in facts["devices"])
