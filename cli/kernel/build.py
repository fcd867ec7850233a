"""`kanctl kernel build`: where the sources, keys and bundles of a build lie, and what its answer says."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kanctl.errors import BadInputError
from kanctl.kernel.build.compile import cores, require_build_tools
from kanctl.kernel.build.drivers import DriverSource, known_drivers, open_source, unpack_known
from kanctl.kernel.build.patches import load_patches, overdue, patched_tree
from kanctl.kernel.build.run import BuildPlan, Built, build, prepare_build
from kanctl.kernel.build.twice import Repeat, compare_bundles
from kanctl.kernel.errors import BuildFailed
from kanctl.kernel.profile import load_profile
from kanctl.kernel.source import SourceTree, fetch_package

from ..context import user_data_dir
from ..output import print_note
from .config import ConfigReport, load_fleet, summary, verdict
from .place import apt_state, cache_dir, source_tree, work_dir
from .remote_build import BuildNode, build_on

# The first series whose tree has the script that writes bills of materials.
SBOM_SERIES = "7.3"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What the user asked of a build."""

    profile: str
    source: str | None = None
    fleet: Path | None = None
    out: Path | None = None
    jobs: int | None = None
    revision: int = 1
    with_sbom: bool = True
    drivers: tuple[str, ...] = ()
    # The node that compiles; None: this machine.
    on: BuildNode | None = None


def build_kernel(options: BuildOptions) -> Built:
    """Build a profile to a bundle; nothing is compiled before the configuration is verified.

    Raises ConfigUnexplained, DeviceLost, BuildFailed and the errors of kernel.prepare and of build_on.
    """
    # A wrong name is told before a missing tool, and both before anything is unpacked.
    load_profile(options.profile)
    if options.on is None:
        require_build_tools()
    elif options.drivers:
        raise BadInputError("drivers are built on this machine, not on a node", "leave out --driver, or --on")
    plan = make_plan(options)
    for line in overdue(plan.patches, datetime.now(UTC).date()):
        print_note(f"patch due: {line}")
    prepared, settings = prepare_build(plan, print_note)
    print_note(summary(prepared.verification, prepared.config))
    error = verdict(ConfigReport(prepared=prepared))
    if error is not None:
        raise error
    if options.on is not None:
        return build_on(options.on, plan, prepared, settings, jobs=options.jobs)
    return build(plan, prepared, settings, print_note)


def build_again(built: Built, options: BuildOptions) -> Repeat:
    """Build the same once more in a folder of its own on this machine, from nothing, and compare the packages.

    Raises BuildFailed where they differ, with every file that does.
    """
    folder = built.folder.parent / "again"
    shutil.rmtree(folder, ignore_errors=True)
    print_note(f"building once more in {folder}")
    second = build_kernel(replace(options, out=folder, with_sbom=False, drivers=(), on=None))
    repeat = compare_bundles(built.folder, second.folder)
    if not repeat.is_identical:
        listed = "\n  ".join(repeat.differing)
        raise BuildFailed(f"two builds of {built.manifest['release']} differ:\n  {listed}")
    return repeat


def make_plan(options: BuildOptions) -> BuildPlan:
    """Sources, patches and places of a build."""
    profile = load_profile(options.profile)
    plain = source_tree(options.source)
    patches = tuple(patch for patch in load_patches() if patch.fits("kernel", plain.numbers))
    work = options.out or work_dir(profile.name, plain.version)
    return BuildPlan(
        profile=profile,
        tree=patched_tree(plain, patches, cache=cache_dir(), report=print_note),
        patches=patches,
        work=work,
        keys=user_data_dir() / "keys",
        fleet=load_fleet(options.fleet, plain),
        sbom_tree=_sbom_tree() if options.with_sbom else None,
        jobs=options.jobs or cores(),
        revision=options.revision,
        drivers=tuple(driver_source(name, plain, work / "drivers") for name in options.drivers),
    )


def driver_source(name: str, tree: SourceTree, work: Path) -> DriverSource:
    """A driver that kanctl knows by name, or the folder of another one's source, copied to where it is built."""
    table = known_drivers()
    if name not in table:
        if not Path(name).is_dir():
            raise BadInputError(f"wanted a driver's source folder or one of {', '.join(table)}, found neither: {name}")
        return open_source(Path(name), work / Path(name).resolve().name)
    row = table[name]
    package = fetch_package(
        str(row["package"]), cache=cache_dir(), state=apt_state(str(row["series"])), report=print_note
    )
    patches = [patch for patch in load_patches() if patch.fits(name, tree.numbers)]
    return unpack_known(name, package, cache=cache_dir(), work=work / name, patches=patches)


def _sbom_tree() -> SourceTree:
    return source_tree(SBOM_SERIES, kconfig_only=True)


def lines(built: Built) -> list[str]:
    """The answer as text."""
    manifest: Mapping[str, Any] = built.manifest
    figures = manifest["build"]
    packages = [f"  {row['file']}  {row['bytes'] / 1e6:.1f} MB" for row in manifest["packages"]]
    return [
        f"built {manifest['release']} in {figures['seconds'] / 60:.0f} min: {figures['objects']} objects, "
        f"{len(manifest['modules'])} modules, {figures['disk_bytes'] / 1e9:.2f} GB of build folder",
        *packages,
        *(
            f"  driver {row['name']}: built" + (f"; {row['note']}" if row["note"] else "")
            for row in manifest["drivers"]
        ),
        f"bundle: {built.folder}",
        f"next: kanctl kernel boot-test {built.folder}",
    ]
