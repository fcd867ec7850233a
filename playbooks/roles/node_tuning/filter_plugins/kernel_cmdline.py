"""Filters that turn kernel/cmdline/*.args into a kernel command line; pure, no file is read here.

The form of an .args file is described in kernel/README.md. Writing the boot loader's files is the role's work.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping

from ansible.errors import AnsibleFilterError

# Nothing that the shell or GRUB would expand or take as an end may pass.
ARGUMENT = re.compile(r"^[A-Za-z0-9_.-]+(=[A-Za-z0-9_.,:/@+-]*)?$")
PLACEHOLDER = re.compile(r"\{([a-z0-9_]+)\}")
KERNEL_LINE = re.compile(r"^Kernel:\s*(<=|>=|<|>)\s*(\d+(?:\.\d+)*)$")
COMPARE: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# These may stand several times on one command line: each hugepages= belongs to the hugepagesz= before it.
REPEATABLE = {"hugepagesz", "hugepages"}
# What the boot loader adds by itself, and so what is no part of a stored command line.
LOADER_KEYS = {"BOOT_IMAGE", "initrd"}


def argument_key(argument: str) -> str:
    """The part before `=`; two arguments with the same key contradict each other."""
    return argument.partition("=")[0]


def version_tuple(release: str, parts: int) -> tuple[int, ...]:
    """The first numbers of a kernel release: `6.12.117+deb12-amd64` with two parts gives (6, 12)."""
    numbers = [int(number) for number in re.findall(r"\d+", release.split("-")[0])]
    return tuple((numbers + [0] * parts)[:parts])


def applies(conditions: Iterable[str], release: str, values: Mapping[str, str]) -> bool:
    """Whether the `Kernel:` and `Only with:` lines above an argument let this node have it."""
    for line in conditions:
        name = line.removeprefix("Only with:").strip()
        if name != line.strip() and not values.get(name):
            return False
        found = KERNEL_LINE.match(line)
        if found:
            wanted = tuple(int(number) for number in found.group(2).split("."))
            if not COMPARE[found.group(1)](version_tuple(release, len(wanted)), wanted):
                return False
    return True


def parse_blocks(text: str) -> list[tuple[int, list[str], str]]:
    """(line number, comment lines straight above, argument) for every argument of an .args file.

    Raises AnsibleFilterError with every argument that has no reason or more than one word.
    """
    blocks: list[tuple[int, list[str], str]] = []
    comments: list[str] = []
    mistakes = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line.startswith("#"):
            comments.append(line.lstrip("#").strip())
            continue
        if line:
            if not comments:
                mistakes.append(f"line {number}: {line!r} has no reason above it")
            if not ARGUMENT.match(PLACEHOLDER.sub("0", line)):
                mistakes.append(f"line {number}: {line!r} is not one kernel argument")
            blocks.append((number, comments, line))
        comments = []
    if mistakes:
        raise AnsibleFilterError("kernel/cmdline: " + "; ".join(mistakes) + ". Next: see kernel/README.md.")
    return blocks


def kernel_arguments(text: str, release: str, values: Mapping[str, object]) -> list[dict[str, str]]:
    """The arguments that a node with this kernel release gets, each with its reason.

    `values` fills the placeholders; an argument whose placeholder is empty is left out. Raises AnsibleFilterError
    where two arguments contradict each other or a value does not fit a command line.
    """
    filled = {name: "" if value in (None, 0, "0") else str(value) for name, value in values.items()}
    chosen = []
    for number, comments, line in parse_blocks(text):
        names = PLACEHOLDER.findall(line)
        unknown = [name for name in names if name not in filled]
        if unknown:
            raise AnsibleFilterError(f"kernel/cmdline line {number}: nothing fills {unknown}; known: {sorted(filled)}.")
        if not applies(comments, release, filled) or not all(filled[name] for name in names):
            continue
        argument = PLACEHOLDER.sub(lambda found: filled[found.group(1)], line)
        chosen.append({"argument": argument, "reason": " ".join(reason_lines(comments))})
    return checked(chosen)


def reason_lines(comments: Iterable[str]) -> list[str]:
    """The comment lines that are a reason, not a condition or a source."""
    return [line for line in comments if not re.match(r"^(Kernel|Only with|Source):", line)]


def checked(arguments: list[dict[str, str]]) -> list[dict[str, str]]:
    """The same list; raises AnsibleFilterError for a malformed argument or two with one key."""
    seen: dict[str, str] = {}
    for row in arguments:
        argument = row["argument"]
        key = argument_key(argument)
        if not ARGUMENT.match(argument):
            raise AnsibleFilterError(
                f"{argument!r} is not one kernel argument. Next: letters, digits and .,:/@+-_= only."
            )
        if key in seen and key not in REPEATABLE:
            raise AnsibleFilterError(f"{argument!r} contradicts {seen[key]!r}. Next: keep one of the two.")
        seen[key] = argument
    return arguments


def override_arguments(arguments: list[dict[str, str]], extra: list[dict[str, str]]) -> list[dict[str, str]]:
    """The profile's arguments with the node's own; one with the same key takes the profile's place."""
    own = {argument_key(row["argument"]) for row in extra}
    return checked([row for row in arguments if argument_key(row["argument"]) not in own] + list(extra))


def merge_cmdline(current: str, wanted: list[str], previous: list[str]) -> str:
    """A stored command line with our arguments in it: what we wrote before goes, what others wrote stays."""
    ours = {argument_key(argument) for argument in wanted} | {argument_key(argument) for argument in previous}
    kept = [word for word in current.split() if argument_key(word) not in ours | LOADER_KEYS]
    return " ".join([*kept, *wanted])


def missing_arguments(wanted: list[str], cmdline: str) -> list[str]:
    """The wanted arguments that the running kernel was not started with."""
    running = set(cmdline.split())
    return [argument for argument in wanted if argument not in running]


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Filter name -> function."""
        return {
            "kernel_arguments": kernel_arguments,
            "override_arguments": override_arguments,
            "merge_cmdline": merge_cmdline,
            "missing_arguments": missing_arguments,
        }
