"""Conditions on a kernel: the small language that capabilities.toml and rules.toml are written in. Pure.

Whether one holds is answer.py's work.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import FragmentInvalid

SYMBOL_TEST = r"(?P<name>CONFIG_\w+) (?P<test>=|>=|>) (?P<value>\S+)"
FORMS: Mapping[str, str] = {
    "config": SYMBOL_TEST,
    "requested": f"requested {SYMBOL_TEST}",
    "every": r"every (?P<name>CONFIG_\w+\*)",
    "kernel": r"kernel (?P<value>[<>].*)",
    "boot": r"boot (?P<name>[\w.-]+)( (?P<test>=|has) (?P<value>\S+)| (?P<list>takes-every-cpu))?",
    "module": r"module (?P<name>\w+\.\w+)( (?P<test>=) (?P<value>\S+))?",
    "dword": r"dword (?P<name>\w+) (?P<test>=) (?P<value>\S+)",
    "repeated": r"repeated (?P<name>\w+\.\w+)",
    "driver": r"driver (?P<name>nvidia)( (?P<list>open))?( (?P<value>[<>]=? [\d.]+))?",
    "peermem": r"peermem (?P<name>symbols)",
    "loaded": r"loaded (?P<name>\w+)",
    "expects": r"expects (?P<name>\w+)",
    "flag": r"flag (?P<name>\w+)",
    "capability": r"capability (?P<name>[\w-]+)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One line of the language above, taken apart."""

    text: str
    subject: str
    name: str = ""
    test: str = ""
    value: str = ""
    is_negated: bool = False


# One of these lists of conditions must hold as a whole.
Clause = tuple[tuple[Condition, ...], ...]


def parse_condition(text: str) -> Condition:
    """Take one condition apart. Raises FragmentInvalid for what is none. The forms:

        CONFIG_X = y | CONFIG_X >= m | CONFIG_X > 512      the configuration; absent is n
        requested CONFIG_X = y                             what the fragments asked for
        every CONFIG_MITIGATION_*                          of these none is off that nobody waived by name
        kernel >= 6.1 and < 7.0
        boot NAME | boot NAME = VALUE | boot NAME has WORD | boot NAME takes-every-cpu
        module nvme_core.multipath = N | module nvidia.NVreg_X       the live value, else the one that modprobe.d gives
        dword PeerMappingOverride = 1                      one of the driver's registry dwords
        repeated nvidia.NVreg_X                            given more than once
        driver nvidia | driver nvidia open | driver nvidia open >= 565.47
        peermem symbols                                    ib_core takes peer memory, which only MOFED's and DOCA's does
        loaded MODULE | expects MODULE | flag gpu
        capability NAME                                    all that this capability needs; gap.py answers it

    `not ` in front turns a condition round. A list of conditions wants all of them, a list of lists one of the lists.
    """
    words = text.removeprefix("not ")
    for subject, form in FORMS.items():
        found = re.fullmatch(form, words)
        if found is None:
            continue
        parts = {key: value or "" for key, value in found.groupdict().items()}
        return Condition(
            text=text,
            subject=subject,
            name=parts.get("name", ""),
            test=parts.get("list", "") or parts.get("test", ""),
            value=parts.get("value", ""),
            is_negated=words != text,
        )
    raise FragmentInvalid(f"wanted a condition in one of the forms of kernel/condition.py, found {text!r}")


def parse_clause(value: object) -> Clause:
    """A clause of a TOML value: a text, a list of texts, or a list of lists. Raises FragmentInvalid."""
    if isinstance(value, str):
        return ((parse_condition(value),),)
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return (tuple(map(parse_condition, value)),)
    if isinstance(value, list) and value and all(isinstance(part, list) and part for part in value):
        return tuple(tuple(map(parse_condition, part)) for part in value)
    raise FragmentInvalid(f"wanted a condition, a list of conditions, or a list of such lists, found {value!r}")
