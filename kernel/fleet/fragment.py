"""A selection as a fragment: requests with the reason that the fleet gives, laid over those of a profile. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..dotconfig import render_line
from ..fragment import Request
from .resolve import Selection, is_for_device, names_of
from .satisfy import Parents


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """All requests together, and where fleet and profile disagreed."""

    requests: Mapping[str, Request]
    # What the fleet switched on against the profile, and what the profile kept off.
    overruled: tuple[str, ...]
    kept_off: tuple[str, ...]


def fleet_requests(chosen: Selection, parents: Parents) -> dict[str, Request]:
    """Symbol -> request for everything that the fleet needs and that has a question."""
    requests = {}
    for number, (symbol, value) in enumerate(parents.added.items(), start=1):
        requests[symbol] = Request(
            symbol=symbol, value=value, reason=_reason(symbol, chosen, parents), fragment="fleet", line=number
        )
    return requests


def overlay(
    requests: Mapping[str, Request], fleet: Mapping[str, Request], chosen: Selection, parents: Parents
) -> Overlay:
    """The profile's requests with the fleet's.

    What the profile switches on stays as it says. What it switches off comes back for a device that a node has; for
    a module that was merely loaded, the profile's reason stands.
    """
    merged = dict(requests)
    overruled, kept_off = [], []
    for symbol, request in fleet.items():
        own = requests.get(symbol)
        if own is None:
            merged[symbol] = request
        elif own.value == "n":
            line = f"{symbol}: {own.place} is off ({own.reason}); {request.reason}"
            if is_for_device(chosen, parents.needed_by.get(symbol, symbol)) or is_for_device(chosen, symbol):
                merged[symbol] = request
                overruled.append(line)
            else:
                kept_off.append(line)
    return Overlay(requests=merged, overruled=tuple(overruled), kept_off=tuple(kept_off))


def render(requests: Mapping[str, Request]) -> str:
    """The fleet's requests as a fragment file that can be read and kept."""
    head = "# What the devices and modules of this fleet need; written by `kanctl kernel modules`.\n"
    blocks = [f"\n# {request.reason}\n{render_line(symbol, request.value)}\n" for symbol, request in requests.items()]
    return head + "".join(blocks)


def _reason(symbol: str, chosen: Selection, parents: Parents) -> str:
    modules = chosen.symbols.get(symbol)
    if not modules:
        return f"{parents.needed_by.get(symbol, 'a driver of the fleet')} depends on it"
    need = chosen.modules[modules[0]]
    where = f" on {names_of(need.nodes)}" if need.nodes else ""
    return f"{', '.join(modules)}: {need.why}{where}"
