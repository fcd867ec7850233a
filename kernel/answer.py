"""Whether conditions hold for a kernel: yes, no, or unknown (None) where something could not be read. Pure."""

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .condition import Clause, Condition
from .kernel_setup import Setup
from .modprobe import Option, argument_values, read_dwords, same_value
from .version import parse_release, satisfies

DWORDS = "nvidia.NVreg_RegistryDwords"
ORDER = ("n", "m", "y")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Whether a condition holds, None where it cannot be said, and what was found."""

    holds: bool | None
    found: str


def ask(condition: Condition, setup: Setup) -> Answer:
    """Whether one condition holds. Conditions on capabilities are gap.py's to answer."""
    answer = ANSWERS[condition.subject](condition, setup)
    if condition.is_negated and answer.holds is not None:
        return Answer(holds=not answer.holds, found=answer.found)
    return answer


def holds(clause: Clause, setup: Setup) -> bool | None:
    """Whether one of a clause's lists holds as a whole."""
    return any_of([all_of([ask(condition, setup).holds for condition in part]) for part in clause])


def all_of(answers: Sequence[bool | None]) -> bool | None:
    """No as soon as one is no, else unknown as soon as one is unknown."""
    if False in answers:
        return False
    return None if None in answers else True


def any_of(answers: Sequence[bool | None]) -> bool | None:
    """Yes as soon as one is yes, else unknown as soon as one is unknown."""
    if True in answers:
        return True
    return None if None in answers else False


def live_or_written(setup: Setup, full_name: str) -> str | None:
    """A parameter's value: the running module's, else the one that it would be loaded with; None for its default."""
    live = setup.parameters.get(full_name)
    return live if live is not None else written(setup, full_name)


def written(setup: Setup, full_name: str) -> str | None:
    """The value that modprobe.d or the command line gives a parameter; None where neither does.

    modprobe puts the command line's values behind its own files', so they win.
    """
    found = [option.value for option in setup.options if option.full_name == full_name]
    found += argument_values(setup.arguments, full_name)
    return found[-1] if found else None


def _ask_config(condition: Condition, setup: Setup) -> Answer:
    if setup.config is None:
        return Answer(holds=None, found="the kernel's configuration cannot be read")
    return _compare(condition, setup.config.get(condition.name, "n"))


def _ask_requested(condition: Condition, setup: Setup) -> Answer:
    return _compare(condition, setup.requested.get(condition.name, "n"))


def _compare(condition: Condition, found: str) -> Answer:
    shown = Answer(holds=False, found=f"{condition.name}={found}")
    if condition.test == "=":
        met = found == condition.value
    elif condition.test == ">=":
        met = found in ORDER and ORDER.index(found) >= ORDER.index(condition.value)
    else:
        met = found.isdigit() and int(found) > int(condition.value)
    return Answer(holds=met, found=shown.found)


def _ask_every(condition: Condition, setup: Setup) -> Answer:
    config = setup.config or {}
    candidates = {*setup.requested, *setup.switched_off}
    off = [
        symbol
        for symbol in sorted(fnmatch.filter(candidates, condition.name))
        if config.get(symbol, "n") == "n" and symbol not in setup.waived
    ]
    return Answer(holds=not off, found=f"off: {', '.join(off)}" if off else f"all of {condition.name} are on")


def _ask_kernel(condition: Condition, setup: Setup) -> Answer:
    return Answer(holds=satisfies(setup.version, condition.value), found=f"kernel {'.'.join(map(str, setup.version))}")


def _ask_boot(condition: Condition, setup: Setup) -> Answer:
    values = argument_values(setup.arguments, condition.name)
    if not values and condition.name in setup.deferred:
        # That it will be given is known, its value is not.
        return Answer(holds=None if condition.test else True, found=f"{condition.name} comes from the inventory")
    if not values:
        return Answer(holds=False, found=f"{condition.name} is not given")
    # The kernel reads from left to right, and for these arguments the last word counts.
    last = values[-1]
    shown = f"{condition.name}={last}" if last else condition.name
    if condition.test == "=":
        return Answer(holds=last == condition.value, found=shown)
    if condition.test == "has":
        return Answer(holds=any(condition.value in re.split(r"[,;=]", value) for value in values), found=shown)
    if condition.test == "takes-every-cpu":
        return Answer(holds=takes_every_cpu(last, setup.cpu_count), found=shown)
    return Answer(holds=True, found=shown)


def takes_every_cpu(cpus: str, count: int | None) -> bool:
    """Whether a list such as `0-3,8` names all CPUs; of an unknown number only `all` and `0-N` do for certain.

    Source: Documentation/admin-guide/kernel-parameters.rst (cpu lists).
    """
    if {"all", "0-N"} & set(cpus.split(",")):
        return True
    named: set[int] = set()
    for first, last in re.findall(r"(?:^|,)(\d+)(?:-(\d+))?(?=,|$)", cpus):
        named |= set(range(int(first), int(last or first) + 1))
    return count is not None and named >= set(range(count))


def _ask_module(condition: Condition, setup: Setup) -> Answer:
    value = live_or_written(setup, condition.name)
    if value is None:
        return Answer(holds=False, found=f"{condition.name} has its default")
    return Answer(
        holds=same_value(value, condition.value) if condition.test else True, found=f"{condition.name}={value}"
    )


def _ask_dword(condition: Condition, setup: Setup) -> Answer:
    value = read_dwords(live_or_written(setup, DWORDS) or "").get(condition.name)
    found = f"registry dword {condition.name} " + (f"is {value}" if value is not None else "is not given")
    return Answer(holds=value is not None and same_value(value, condition.value), found=found)


def _ask_repeated(condition: Condition, setup: Setup) -> Answer:
    given = [option for option in setup.options if option.full_name == condition.name]
    count = len(given) + len(argument_values(setup.arguments, condition.name))
    return Answer(holds=count > 1, found=f"{condition.name} is given {count} times{_places(given)}")


def _places(options: Sequence[Option]) -> str:
    places = sorted({option.place for option in options if option.place})
    return f" in {', '.join(places)}" if places else ""


def _ask_driver(condition: Condition, setup: Setup) -> Answer:
    if not setup.is_running:
        return Answer(holds=None, found="the driver of a kernel that is not running is unknown")
    if setup.nvidia is None:
        return Answer(holds=False, found="no NVIDIA driver is loaded")
    flavour = "open" if setup.nvidia.is_open else "proprietary"
    found = f"NVIDIA {setup.nvidia.version}, {flavour} modules"
    right_kind = setup.nvidia.is_open or condition.test != "open"
    return Answer(holds=right_kind and satisfies(parse_release(setup.nvidia.version), condition.value), found=found)


def _ask_peermem(_condition: Condition, setup: Setup) -> Answer:
    if setup.has_peermem_symbols:
        return Answer(holds=True, found="ib_core takes peer memory")
    if setup.has_peermem_symbols is None or (setup.is_running and "ib_core" not in setup.loaded):
        return Answer(holds=None, found="ib_core's symbols cannot be seen: it is not loaded, or kallsyms is closed")
    return Answer(holds=False, found="ib_core is the kernel's own, without ib_register_peer_memory_client")


def _ask_loaded(condition: Condition, setup: Setup) -> Answer:
    if not setup.is_running:
        return Answer(holds=None, found="the modules of a kernel that is not running are unknown")
    there = condition.name in setup.loaded
    return Answer(holds=there, found=f"{condition.name} is {'' if there else 'not '}loaded")


def _ask_expects(condition: Condition, setup: Setup) -> Answer:
    there = condition.name in setup.expects
    return Answer(holds=there, found=f"{condition.name} is {'' if there else 'not '}among expect_modules")


def _ask_flag(condition: Condition, setup: Setup) -> Answer:
    there = condition.name in setup.flags
    return Answer(holds=there, found=f"{condition.name} is {'true' if there else 'false'}")


def _ask_capability(condition: Condition, _setup: Setup) -> Answer:
    raise ValueError(f"{condition.text}: only kernel/gap.py answers conditions on capabilities")


ANSWERS: Mapping[str, Callable[[Condition, Setup], Answer]] = {
    "config": _ask_config,
    "requested": _ask_requested,
    "every": _ask_every,
    "kernel": _ask_kernel,
    "boot": _ask_boot,
    "module": _ask_module,
    "dword": _ask_dword,
    "repeated": _ask_repeated,
    "driver": _ask_driver,
    "peermem": _ask_peermem,
    "loaded": _ask_loaded,
    "expects": _ask_expects,
    "flag": _ask_flag,
    "capability": _ask_capability,
}
