"""What a node's kernel can do, and the cheapest way to what it cannot: a boot argument, an option, a build. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from . import dotconfig
from .answer import DWORDS, Answer, all_of, any_of, ask, written
from .capability import Capability, Need
from .condition import Condition
from .kernel_setup import Setup
from .modprobe import argument_values, read_dwords, render_dwords, same_value

COMMAND_LINE = "kernel command line"
NVIDIA_FILE = "/etc/modprobe.d/kanctl-nvidia.conf"


class Fix(StrEnum):
    """What kind of step leads to a need, the cheapest first."""

    RESTART = "restart"
    BOOT = "boot argument"
    PARAMETER = "module parameter"
    UNKNOWN = "unknown"
    DRIVER = "driver"
    BUILD = "rebuild"


COST = {fix: cost for cost, fix in enumerate(Fix)}
# What a reader is told in a table's cell; boot arguments and options are both settings of the kernel that is there.
WORDS = {
    Fix.BUILD: "build",
    Fix.DRIVER: "driver",
    Fix.BOOT: "tune",
    Fix.PARAMETER: "tune",
    Fix.RESTART: "restart",
    Fix.UNKNOWN: "unknown",
}
# What to say where settings alone lead there.
ENOUGH = {
    frozenset[Fix](): "all is written, a restart is enough",
    frozenset({Fix.BOOT}): "boot arguments are enough (kanctl kernel tune)",
    frozenset({Fix.PARAMETER}): "module options are enough",
    frozenset({Fix.BOOT, Fix.PARAMETER}): "boot arguments (kanctl kernel tune) and module options are enough",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line to add, and where; of an unknown thing, how to see it."""

    fix: Fix
    line: str
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One need on one node: whether it is met (None: unknown), what was found, and the steps to it."""

    need: Need
    is_met: bool | None
    found: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One capability on one node."""

    capability: Capability
    findings: tuple[Finding, ...]

    @property
    def is_met(self) -> bool | None:
        """Whether all that it needs is there; what would only be better does not count."""
        return all_of([finding.is_met for finding in self.findings if not finding.need.is_better])

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps to it, each once."""
        return _steps(finding for finding in self.findings if not finding.need.is_better)

    @property
    def better(self) -> tuple[Step, ...]:
        """The steps that would make it better."""
        wanted = _steps(finding for finding in self.findings if finding.need.is_better)
        return tuple(step for step in wanted if step not in self.steps)

    @property
    def word(self) -> str:
        """`met`, or the kinds of work that lie before it, the longest first: `build + tune`."""
        if self.is_met:
            return "met"
        kinds = sorted({step.fix for step in self.steps}, key=lambda fix: -COST[fix])
        return " + ".join(dict.fromkeys(WORDS[kind] for kind in kinds))

    @property
    def enough(self) -> str:
        """What is enough for it, in one sentence."""
        kinds = {step.fix for step in self.steps}
        if self.is_met:
            return "nothing is missing"
        if Fix.BUILD in kinds:
            return "no boot argument helps: it needs another kernel (kanctl kernel build)"
        if Fix.UNKNOWN in kinds:
            return "it cannot be said before the unknown is read"
        if Fix.DRIVER in kinds:
            return "the kernel will do, but not its drivers" + (" and settings" if len(kinds) > 1 else "")
        return f"{ENOUGH[frozenset(kinds - {Fix.RESTART})]}; nothing is built"


def judge(setup: Setup, capabilities: Mapping[str, Capability]) -> dict[str, Verdict]:
    """Capability -> verdict for one node. `capabilities` has those that others build on first."""
    found: dict[str, Verdict] = {}
    for name, capability in capabilities.items():
        findings = tuple(find(need, setup, found) for need in capability.needs if need.counts_on(setup.version))
        found[name] = Verdict(capability=capability, findings=findings)
    return found


def find(need: Need, setup: Setup, verdicts: Mapping[str, Verdict]) -> Finding:
    """One need on one node; of several ways to it the cheapest is taken."""
    ways = [[(condition, _answer(condition, setup, verdicts)) for condition in part] for part in need.clause]
    is_met = any_of([all_of([answer.holds for _, answer in way]) for way in ways])
    found = ", ".join(dict.fromkeys(answer.found for way in ways for _, answer in way))
    if is_met:
        return Finding(need=need, is_met=True, found=found, steps=())
    choices = [tuple(step for pair in way for step in _steps_to(*pair, need, setup, verdicts)) for way in ways]
    if is_met is None:
        # A way that is known to be closed is not offered while another one may be open already.
        choices = [choice for choice in choices if any(step.fix is Fix.UNKNOWN for step in choice)]
    return Finding(need=need, is_met=is_met, found=found, steps=min(choices, key=_cost))


def _answer(condition: Condition, setup: Setup, verdicts: Mapping[str, Verdict]) -> Answer:
    if condition.subject != "capability":
        return ask(condition, setup)
    verdict = verdicts[condition.name]
    return Answer(holds=verdict.is_met, found=f"{condition.name}: {verdict.word}")


def _cost(steps: Sequence[Step]) -> int:
    """Of ways that need the same kind of work, the one that the file names first is taken."""
    return max(COST[step.fix] for step in steps)


def _steps(findings: Iterable[Finding]) -> tuple[Step, ...]:
    return tuple(dict.fromkeys(step for finding in findings for step in finding.steps))


def _steps_to(
    condition: Condition, answer: Answer, need: Need, setup: Setup, verdicts: Mapping[str, Verdict]
) -> tuple[Step, ...]:
    """What makes a condition hold; nothing where it does."""
    if answer.holds:
        return ()
    if condition.subject == "capability":
        return verdicts[condition.name].steps
    if answer.holds is None:
        return (Step(fix=Fix.UNKNOWN, line=answer.found, place=HOW_TO_SEE.get(condition.subject, "")),)
    step = _step_to(condition, need, setup)
    is_realtime = setup.config is not None and setup.config.get("CONFIG_PREEMPT_RT") == "y"
    return (NO_REALTIME, step) if condition.subject == "driver" and is_realtime else (step,)


# A driver that is loaded has proved that the kernel will do, so this is asked for only where none is.
NO_REALTIME = Step(
    fix=Fix.BUILD, line="a kernel without PREEMPT_RT, on which NVIDIA's driver does not build", place="rebuild"
)
HOW_TO_SEE = {
    "config": "zcat /proc/config.gz, or the file config-$(uname -r) of the kernel's package in /boot",
    "peermem": "modprobe ib_core; grep ib_register_peer_memory_client /proc/kallsyms",
}


def _step_to(condition: Condition, need: Need, setup: Setup) -> Step:
    subject, name, value = condition.subject, condition.name, condition.value
    if subject == "config":
        wanted = "n" if condition.is_negated else value
        return Step(fix=Fix.BUILD, line=need.line if _is_own_line(need) else _symbol(name, wanted), place="rebuild")
    if subject == "kernel":
        return Step(fix=Fix.BUILD, line=f"a kernel {value}", place="rebuild")
    if subject == "boot":
        plain = f"without {name}=" if condition.is_negated else f"{name}={value}" if value else name
        return Step(fix=Fix.BOOT, line=need.line or plain, place=COMMAND_LINE)
    if subject == "module":
        return _parameter_step(condition, need, setup)
    if subject == "dword":
        return _dword_step(condition, setup)
    if subject == "loaded":
        return Step(fix=Fix.PARAMETER, line=name, place=f"/etc/modules-load.d/kanctl-{name.rpartition('_')[2]}.conf")
    if subject == "peermem":
        return Step(fix=Fix.DRIVER, line=need.line, place="driver")
    assert subject == "driver", f"{condition.text}: no step is known"
    flavour = "NVIDIA's open kernel modules" if condition.test == "open" else "NVIDIA's driver"
    return Step(fix=Fix.DRIVER, line=f"{flavour} {value}".strip(), place="role nvidia_driver")


def _is_own_line(need: Need) -> bool:
    """Whether the need's `line` speaks of its symbol: it does where no boot argument stands beside the symbol."""
    return bool(need.line) and not any(condition.subject == "boot" for part in need.clause for condition in part)


def _symbol(name: str, value: str) -> str:
    return dotconfig.render_line(name, value)


def _parameter_step(condition: Condition, need: Need, setup: Setup) -> Step:
    module, _, parameter = condition.name.partition(".")
    place = _place_of(condition.name, setup) or need.place or f"/etc/modprobe.d/kanctl-{module}.conf"
    ready = written(setup, condition.name)
    if condition.is_negated:
        return Step(fix=Fix.PARAMETER, line=f"without {parameter}={condition.value}", place=f"options of {module}")
    if ready is not None and same_value(ready, condition.value):
        return Step(
            fix=Fix.RESTART, line=f"{condition.name}={ready} is written, and not in effect yet", place="restart"
        )
    return Step(fix=Fix.PARAMETER, line=f"options {module} {parameter}={condition.value}", place=place)


def _dword_step(condition: Condition, setup: Setup) -> Step:
    ready = read_dwords(written(setup, DWORDS) or "").get(condition.name)
    dword = f"{condition.name}={condition.value}"
    if ready is not None and same_value(ready, condition.value):
        return Step(fix=Fix.RESTART, line=f"registry dword {dword} is written, and not in effect yet", place="restart")
    return Step(fix=Fix.PARAMETER, line=dword, place=DWORDS)


def _place_of(full_name: str, setup: Setup) -> str:
    """Where a parameter is written already, and must be replaced: a second line would fight with the first."""
    if argument_values(setup.arguments, full_name):
        return f"{COMMAND_LINE}, in place of {full_name}= there"
    places = [option.place for option in setup.options if option.full_name == full_name]
    return f"{places[-1]}, in place of {full_name.partition('.')[2]} there" if places else ""


def merge_options(steps: Iterable[Step], setup: Setup) -> tuple[Step, ...]:
    """The same steps with all registry dwords in one line, and one line a module and file.

    The driver reads one NVreg_RegistryDwords string, so the dwords that the node has already are kept in it.
    """
    rest: dict[Step, None] = {}
    dwords: dict[str, str] = {}
    options: dict[tuple[str, str], list[str]] = {}
    for step in steps:
        if step.place == DWORDS:
            dwords |= read_dwords(step.line)
        elif step.fix is Fix.PARAMETER and step.line.startswith("options "):
            _, module, setting = step.line.split(None, 2)
            options.setdefault((step.place, module), []).append(setting)
        else:
            rest[step] = None
    if dwords:
        whole = render_dwords({**read_dwords(written(setup, DWORDS) or ""), **dwords})
        place = _place_of(DWORDS, setup) or NVIDIA_FILE
        options.setdefault((place, "nvidia"), []).append(f'NVreg_RegistryDwords="{whole}"')
    lines = [
        Step(fix=Fix.PARAMETER, line=f"options {module} {' '.join(dict.fromkeys(settings))}", place=place)
        for (place, module), settings in options.items()
    ]
    return (*rest, *lines)
