"""Kernel versions as numbers, and the conditions on them that fragments, rules and patches carry. Pure."""

import operator
import re
from collections.abc import Callable

from .errors import FragmentInvalid

CONDITION = re.compile(r"^(<=|>=|<|>)\s*(\d+(?:\.\d+)*)$")
COMPARE: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def parse_release(release: str) -> tuple[int, ...]:
    """The leading numbers of a version or release: `6.12.117-kanctl` gives (6, 12, 117). Raises FragmentInvalid."""
    found = re.match(r"\d+(?:\.\d+)*", release.strip())
    if found is None:
        raise FragmentInvalid(f"wanted a kernel version such as 6.12.117, found {release!r}")
    return tuple(int(number) for number in found.group().split("."))


def satisfies(version: tuple[int, ...], condition: str) -> bool:
    """Whether a version meets a condition such as `>= 6.1 and < 7.0`; an empty condition is always met.

    Only as many numbers are compared as the condition names, so 6.12.117 meets `<= 6.12`. Raises FragmentInvalid.
    """
    return all(_meets(version, part) for part in condition.split(" and ")) if condition.strip() else True


def _meets(version: tuple[int, ...], part: str) -> bool:
    found = CONDITION.match(part.strip())
    if found is None:
        raise FragmentInvalid(f"wanted a condition such as `< 7.0` or `>= 6.1 and < 7.0`, found {part.strip()!r}")
    wanted = tuple(int(number) for number in found.group(2).split("."))
    padded = (version + (0,) * len(wanted))[: len(wanted)]
    return COMPARE[found.group(1)](padded, wanted)
