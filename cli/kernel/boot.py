"""`kanctl kernel boot-test` and `kanctl kernel compare`: which kernels to boot, with what, and how the answer looks."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kanctl import __version__
from kanctl.errors import BadInputError
from kanctl.kernel import dotconfig
from kanctl.kernel.boot.compare import METRICS, Column, effects, table
from kanctl.kernel.boot.measure import Subject, measure, open_bundle
from kanctl.kernel.boot.qemu import Machine
from kanctl.kernel.boot.report import BootReport, broken_promises, driver_problems
from kanctl.kernel.errors import BootTestFailed

from ..output import print_note
from .place import cache_dir, stock_kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class BootTest:
    """One boot test and where it broke a promise."""

    subject: Subject
    report: BootReport
    problems: tuple[str, ...]


def find_subject(text: str) -> Subject:
    """`stock:6.12`, or the folder of a bundle. Raises BadInputError."""
    kind, mark, series = text.partition(":")
    if mark and kind == "stock":
        kernel = stock_kernel(series)
        return Subject(name=f"stock {kernel.release}", kernel=kernel)
    folder = Path(text).expanduser()
    if not folder.is_dir():
        raise BadInputError(f"wanted a bundle's folder or stock:SERIES, found neither at {text}", "kanctl kernel build")
    return open_bundle(folder, cache_dir())


def boot_test(
    text: str, arguments: Sequence[str] | None, drivers: Sequence[Path], limit_s: int, again: bool
) -> BootTest:
    """Boot a kernel with its own arguments (or the given ones) and judge it by its bundle's manifest."""
    subject = find_subject(text)
    given = tuple(arguments) if arguments is not None else subject.arguments
    expected = tuple(subject.manifest["expect_modules"]) if subject.manifest else ()
    own = sorted(Path(text).glob("drivers/*.ko"), key=lambda path: len(path.name)) if subject.manifest else []
    report = measure(
        subject, given, modules=expected, drivers=[*own, *drivers], cache=cache_dir(), machine=Machine(limit_s=limit_s),
        report=print_note, again=again,
    )  # fmt: skip
    problems = broken_promises(report, subject.manifest, given) if subject.manifest else list(report.trouble)
    stubs = (
        {row["file"] for row in subject.manifest["drivers"] if row["is_stub"]} if own and subject.manifest else set()
    )
    problems += driver_problems({name: state for name, state in report.drivers.items() if name not in stubs})
    return BootTest(subject=subject, report=report, problems=tuple(problems))


def boot_verdict(test: BootTest) -> BootTestFailed | None:
    """The error of a boot test with problems."""
    if not test.problems:
        return None
    listed = "\n  ".join(test.problems)
    return BootTestFailed(f"{test.subject.name} boots, but breaks {len(test.problems)} promises:\n  {listed}")


def boot_lines(test: BootTest) -> list[str]:
    """The answer as text."""
    report = test.report
    loaded = sum(state == "loaded" for state in report.modules.values())
    latency = f"{report.cyclictest_max_ns:,}" if report.cyclictest_max_ns is not None else "-"
    return [
        f"{report.release}: init after {report.init_ns / 1e6:,.0f} million instructions, preempt={report.preempt}",
        f"  memory free {report.memfree_kib / 1024:.1f} of {report.memtotal_kib / 1024:.1f} MiB, {report.tasks} tasks, "
        f"{loaded} of {len(report.modules)} expected modules loaded",
        f"  cyclictest under load, longest: {latency} instructions; 300 fork+exec {report.forkexec_ns / 1e6:,.0f} and "
        f"100 MiB to tmpfs {report.write_ns / 1e6:,.0f} million",
        f"  dmesg: {len(report.trouble)} warnings",
        *(f"  driver {name}: {state}" for name, state in report.drivers.items()),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Columns of kernels and arguments, and what each argument alone changed on the first kernel."""

    columns: tuple[Column, ...]
    options: dict[str, tuple[BootReport, ...]]


def compare(first: str, second: str, *, each_option: bool, repeats: int, limit_s: int) -> Comparison:
    """Boot two kernels without and with the second one's arguments; `each_option`: each argument alone on the first."""
    a, b = find_subject(first), find_subject(second)
    arguments = b.arguments or a.arguments

    def run(subject: Subject, given: Sequence[str]) -> tuple[BootReport, ...]:
        # The same boot gives the same figures; a word that the kernel does not know shifts what follows it in memory,
        # and so shows how far figures depend on such accidents.
        return tuple(
            measure(
                subject, (*given, f"kanctl.run={number}"), cache=cache_dir(), machine=Machine(limit_s=limit_s),
                report=print_note,
            )
            for number in range(1, repeats + 1)
        )  # fmt: skip

    columns = [Column(title=a.name, runs=run(a, ()), facts=package_facts(a))]
    if arguments:
        columns.append(Column(title=f"{a.name} + boot arguments", runs=run(a, arguments), facts=package_facts(a)))
    columns.append(Column(title=b.name, runs=run(b, ()), facts=package_facts(b)))
    if arguments:
        columns.append(Column(title=f"{b.name} + boot arguments", runs=run(b, arguments), facts=package_facts(b)))
    options = {argument: run(a, (argument,)) for argument in arguments} if each_option else {}
    return Comparison(columns=tuple(columns), options=options)


def package_facts(subject: Subject) -> dict[str, float]:
    """Figures of a kernel's package: modules, their size, the image's size, symbols built in."""
    modules = [path for path in subject.kernel.modules.rglob("*.ko*") if path.is_file()]
    config = dotconfig.parse(subject.kernel.config.read_text())
    return {
        "modules": len(modules),
        "modules on disk, MB": round(sum(path.stat().st_size for path in modules) / 1e6, 1),
        "kernel image, MB": round(subject.kernel.image.stat().st_size / 1e6, 2),
        "symbols built in": sum(value == "y" for value in config.values()),
    }


def compare_tables(comparison: Comparison) -> list[tuple[list[str], list[list[str]]]]:
    """The comparison's tables: kernels side by side, then each argument alone."""
    tables = [table(comparison.columns)]
    if comparison.options:
        heads = ["argument alone, on the first kernel", *(metric.label for metric in METRICS)]
        tables.append((heads, effects(comparison.columns[0].runs, comparison.options)))
    return tables


def compare_document(comparison: Comparison) -> dict[str, Any]:
    """The comparison as one JSON object; times are instructions."""
    return {
        "measured": datetime.now(UTC).date().isoformat(),
        "kanctl": __version__,
        "machine": "QEMU q35, TCG, one core, 1 GiB, -icount shift=0: one nanosecond is one instruction",
        "columns": [
            {"title": column.title, "package": dict(column.facts), "boots": [run.document() for run in column.runs]}
            for column in comparison.columns
        ],
        "each_option": {option: [run.document() for run in runs] for option, runs in comparison.options.items()},
    }


def write_outputs(comparison: Comparison, plot: Path | None, out: Path | None) -> None:
    """The picture and the JSON file, where asked for."""
    if out is not None:
        out.write_text(json.dumps(compare_document(comparison), indent=1) + "\n")
    if plot is not None:
        from kanctl.kernel.boot.plot import draw

        draw(comparison.columns, plot)
