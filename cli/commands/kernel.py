"""kanctl kernel: from the fleet's hardware to a measured, boot-tested, safely promoted kernel."""

from pathlib import Path
from typing import Annotated

import typer

from kanctl.errors import BadInputError

from ..app import make_group
from ..context import InventoryOption, JsonOption, LimitOption, YesOption, load, select_nodes
from ..output import confirm, print_answer, print_json, print_note, print_table

app = make_group("Build, test and safely install kernels made for these nodes.")

ProfileOption = Annotated[str, typer.Option("--profile", help="low-latency, throughput, inference or lab.")]
SourceOption = Annotated[
    str | None, typer.Option("--source", help="A series such as 6.12 (default), or an unpacked kernel tree.")
]
FleetOption = Annotated[
    Path | None, typer.Option("--fleet", help="Fleet file: what the nodes are made of, from kernel modules.")
]
LocalOption = Annotated[bool, typer.Option("--local", help="Ask this machine, without a cluster.")]
WriteFleetOption = Annotated[
    Path | None, typer.Option("--write-fleet", help="Keep what the nodes said in this fleet file.")
]
CheckOption = Annotated[bool, typer.Option("--check", help="Show what would be done; change nothing.")]
LimitSecondsOption = Annotated[int, typer.Option("--time-limit-s", help="Seconds after which a boot counts as hung.")]


@app.command()
def config(
    profile: ProfileOption = "low-latency",
    source: SourceOption = None,
    fleet: FleetOption = None,
    forward: Annotated[list[str] | None, typer.Option(help="Check against this series too, by Kconfig alone.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for .config; default: the user's data folder.")] = None,
    force: Annotated[list[str] | None, typer.Option(help="A rule of kernel/rules.toml that shall only warn.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Configure a kernel, and explain the end of every requested line; nothing is compiled. Exit 3: one is not taken.

    Examples:

      kanctl kernel config --profile low-latency --forward 7.3

      kanctl kernel config --profile throughput --fleet fleet.json --json
    """
    from ..kernel.config import configure_profile, document, rows, summary, verdict

    report = configure_profile(profile, source, fleet, forward or [], out, force or [])
    if as_json:
        print_json(document(report))
    else:
        for check in (report.prepared.verification, *report.forward):
            if rows(check):
                print_table(("symbol", "wanted", "outcome", "why", "waiver or place"), rows(check))
        print_answer(summary(report.prepared.verification, report.prepared.config))
        print_answer("\n".join([*map(summary, report.forward), f"configuration: {report.prepared.output}/.config"]))
    for violation in report.violations():
        print_note(f"{violation.severity}: {violation.text}")
    error = verdict(report)
    if error is not None:
        raise error


@app.command()
def modules(
    fleet: FleetOption = None,
    local: LocalOption = False,
    write_fleet: WriteFleetOption = None,
    profile: ProfileOption = "low-latency",
    source: SourceOption = None,
    limit: LimitOption = None,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the modules that the nodes' devices need, each with its reason. Exit 3: a node would lose a device.

    Examples:

      kanctl kernel modules --write-fleet fleet.json

      kanctl kernel modules --fleet fleet.json --profile throughput --json
    """
    from ..kernel.config import lost_devices
    from ..kernel.modules import Where, document, gather, lines, resolve_modules, rows

    cluster = None if fleet or local else load(inventory)
    nodes = select_nodes(cluster, limit) if cluster else ()
    facts = gather(Where(file=fleet, local=local, cluster=cluster, nodes=nodes), write_fleet)
    prepared = resolve_modules(facts, profile, source)
    if as_json:
        print_json(document(prepared))
    else:
        print_table(("module", "symbol", "kind", "why"), rows(prepared))
        print_answer("\n".join(lines(prepared)))
    error = lost_devices(prepared)
    if error is not None:
        raise error


@app.command()
def gap(
    fleet: FleetOption = None,
    local: LocalOption = False,
    write_fleet: WriteFleetOption = None,
    wanted: Annotated[list[str] | None, typer.Option("--for", help="Only this capability, which must be met.")] = None,
    limit: LimitOption = None,
    inventory: InventoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what the nodes' kernels can do, and the lines that lead to the rest. Exit 3: one named by --for is not met.

    Examples:

      kanctl kernel gap --for low-latency --for gpudirect-rdma-dmabuf

      kanctl kernel gap --fleet fleet.json --json
    """
    from ..kernel.gap import document, find_gap, lines, table, verdict
    from ..kernel.modules import Where, gather

    cluster = None if fleet or local else load(inventory)
    nodes = select_nodes(cluster, limit) if cluster else ()
    found = find_gap(gather(Where(file=fleet, local=local, cluster=cluster, nodes=nodes), write_fleet), wanted or [])
    if as_json:
        print_json(document(found))
    else:
        print_table(*table(found))
        print_answer("\n".join(lines(found)))
    error = verdict(found)
    if error is not None:
        raise error


@app.command()
def build(
    profile: ProfileOption = "low-latency",
    source: SourceOption = None,
    fleet: FleetOption = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Compilations at once; default: one a core.")] = None,
    revision: Annotated[int, typer.Option(min=1, help="Number of the packages, when one is built again.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for objects and bundle; default: the data folder.")] = None,
    sbom: Annotated[bool, typer.Option(help="Write a bill of materials (SPDX).")] = True,
    driver: Annotated[list[str] | None, typer.Option(help="nvidia-open, or a source folder: built as a gate.")] = None,
    on: Annotated[str | None, typer.Option("--on", help="Compile on this node instead of this machine.")] = None,
    inventory: InventoryOption = None,
    yes: YesOption = False,
    twice: Annotated[bool, typer.Option("--twice", help="Build again elsewhere, and compare byte for byte.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Build a kernel to Debian packages with a manifest. An interrupted build goes on where it stopped.

    Examples:

      kanctl kernel build --profile low-latency --fleet fleet.json

      kanctl kernel build --profile low-latency --on node1 --yes
    """
    from ..kernel.build import BuildOptions, build_again, build_kernel, lines
    from ..kernel.remote_build import find_node

    node = find_node(load(inventory), on) if on else None
    if on:
        _confirm(f"Install compilers on {on} and build there?", yes)

    options = BuildOptions(
        profile=profile, source=source, fleet=fleet, out=out, jobs=jobs, revision=revision, with_sbom=sbom,
        drivers=tuple(driver or ()), on=node,
    )  # fmt: skip
    built = build_kernel(options)
    if as_json:
        print_json(dict(built.manifest))
    else:
        print_answer("\n".join(lines(built)))
    if twice:
        print_note(f"{build_again(built, options).packages} packages are the same to the last byte")


@app.command(name="boot-test")
def boot_test(
    kernel: Annotated[str, typer.Argument(help="A bundle's folder, or stock:6.12 for the distribution's kernel.")],
    arguments: Annotated[str | None, typer.Option(help="Boot arguments instead of the bundle's own.")] = None,
    driver: Annotated[list[Path] | None, typer.Option(help="A module file to load as well.")] = None,
    time_limit_s: LimitSecondsOption = 900,
    again: Annotated[bool, typer.Option("--again", help="Boot even if this boot was done before.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Boot a kernel in QEMU and hold it to its manifest: modules, preemption, command line, dmesg. Exit 3: it fails.

    Examples:

      kanctl kernel boot-test stock:6.12 --arguments preempt=full

      kanctl kernel boot-test kernels/6.12.117-kanctl-lab-1a2b3c --json
    """
    from ..kernel.boot import boot_lines, boot_verdict
    from ..kernel.boot import boot_test as run_test

    test = run_test(kernel, arguments.split() if arguments is not None else None, driver or [], time_limit_s, again)
    if as_json:
        print_json({**test.report.document(), "problems": list(test.problems)})
    else:
        print_answer("\n".join(boot_lines(test)))
    error = boot_verdict(test)
    if error is not None:
        raise error


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="The baseline: stock:6.12, or a bundle's folder.")],
    second: Annotated[str, typer.Argument(help="The kernel to compare: a bundle's folder.")],
    each_option: Annotated[bool, typer.Option("--each-option", help="Try every boot argument alone as well.")] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Boots of each; figures are medians.")] = 3,
    plot: Annotated[Path | None, typer.Option(help="Draw the ratios to this .png or .svg file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write all figures to this .json file.")] = None,
    time_limit_s: LimitSecondsOption = 900,
    as_json: JsonOption = False,
) -> None:
    """Compare two kernels side by side, each without and with boot arguments, in instructions counted by QEMU.

    Examples:

      kanctl kernel compare stock:6.12 kernels/6.12.117-kanctl-lab-1a2b3c

      kanctl kernel compare stock:6.12 kernels/new --each-option --plot new.svg
    """
    from ..kernel.boot import compare as run_compare
    from ..kernel.boot import compare_document, compare_tables, write_outputs

    comparison = run_compare(first, second, each_option=each_option, repeats=repeats, limit_s=time_limit_s)
    write_outputs(comparison, plot, out)
    if as_json:
        print_json(compare_document(comparison))
    else:
        for heads, rows in compare_tables(comparison):
            print_table(heads, rows)
    print_note("figures are instructions in one emulated core; caches, interrupts and hardware are not in them")


@app.command()
def install(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder, from kernel build.")],
    limit: LimitOption = None,
    inventory: InventoryOption = None,
    check: CheckOption = False,
    yes: YesOption = False,
) -> None:
    """Try a kernel on one node after the other: started once, judged, kept or left. Nodes restart.

    Examples:

      kanctl kernel install kernels/6.12.117-kanctl-lab-1a2b3c --check

      kanctl kernel install kernels/new --limit node1 --yes
    """
    from ..kernel.trial import install as run_install

    cluster = load(inventory)
    nodes = select_nodes(cluster, limit)
    _confirm(f"Restart {', '.join(node.name for node in nodes)} into {bundle.name}?", check or yes)
    run_install(cluster, nodes, bundle, check=check)


@app.command()
def tune(
    profile: Annotated[str | None, typer.Option(help="Arguments of this profile, not the inventory's.")] = None,
    limit: LimitOption = None,
    inventory: InventoryOption = None,
    check: CheckOption = False,
    yes: YesOption = False,
) -> None:
    """Try boot arguments on the nodes' own kernel, one node after the other: kept where they are good. Nodes restart.

    Examples:

      kanctl kernel tune --check

      kanctl kernel tune --profile low-latency --limit node1 --yes
    """
    from ..kernel.trial import tune as run_tune

    cluster = load(inventory)
    nodes = select_nodes(cluster, limit)
    _confirm(f"Restart {', '.join(node.name for node in nodes)} with other boot arguments?", check or yes)
    run_tune(cluster, nodes, profile, check=check)


@app.command()
def promote(
    limit: LimitOption = None,
    inventory: InventoryOption = None,
    check: CheckOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what is on trial on the nodes, judge it, and keep what passes. Exit 1: a node went back. Exit 3: one fails.

    Examples:

      kanctl kernel promote --check --json

      kanctl kernel promote --limit node1 --yes
    """
    from ..kernel.trial import promote as run_promote
    from ..kernel.trial import read_trials, rows, verdict

    cluster = load(inventory)
    nodes = select_nodes(cluster, limit)
    trials = read_trials(nodes)
    if as_json:
        print_json([trial.document() for trial in trials])
    else:
        print_table(("node", "running", "last good", "on trial", "verdict"), rows(trials))
    error = verdict(trials)
    if error is not None:
        raise error
    waiting = [node for node, trial in zip(nodes, trials, strict=True) if trial.trial]
    if waiting and not check:
        _confirm(f"Keep what is on trial on {', '.join(node.name for node in waiting)}?", yes)
        run_promote(cluster, waiting)


def _confirm(question: str, is_agreed: bool) -> None:
    if not (is_agreed or confirm(question)):
        raise BadInputError("nothing was changed: not confirmed", "answer y on a terminal, or --yes")
