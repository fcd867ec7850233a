"""One build from a profile to a bundle: prepare, compile, package, describe. An edge file; each step stands elsewhere.

A bundle is complete or not there: it is put together beside its place and moved.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..fragment import Request
from ..prepare import Fleet, Prepared, prepare
from ..profile import Profile
from ..source import SourceTree, made_whole, sha256_of
from .drivers import DriverModule, DriverSource, build_driver
from .manifest import make_manifest
from .objects import expected_objects
from .patches import Patch, patches_digest
from .settings import BuildSettings, inputs_digest, local_version
from .signing import ensure_key
from .step import Compiled, Task, compile_and_package, compiler_version


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildPlan:
    """Everything that one build is made from."""

    profile: Profile
    tree: SourceTree
    patches: tuple[Patch, ...]
    work: Path
    keys: Path
    fleet: Fleet | None = None
    sbom_tree: SourceTree | None = None
    drivers: tuple[DriverSource, ...] = ()
    jobs: int = 1
    revision: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What a build made, before it is a bundle."""

    compiled: Compiled
    drivers: Sequence[DriverModule] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A finished bundle."""

    folder: Path
    manifest: Mapping[str, Any]


def prepare_build(plan: BuildPlan, report: Callable[[str], None]) -> tuple[Prepared, BuildSettings]:
    """The verified configuration in the build folder, and the kernel's name, which depends on all that was asked."""
    facts = {
        "source": plan.tree.package.sha256 if plan.tree.package else str(plan.tree.path),
        "patches": patches_digest(plan.patches),
        "compiler": compiler_version(),
    }

    def name(requests: Mapping[str, Request]) -> BuildSettings:
        suffix = local_version(plan.profile.name, inputs_digest(requests, facts))
        return BuildSettings(
            version=plan.tree.version, local_version=suffix, revision=plan.revision, epoch_s=source_epoch_s(plan.tree)
        )

    def finish(requests: Mapping[str, Request]) -> Mapping[str, str]:
        return name(requests).fixed_config(signed=is_signed(requests))

    prepared = prepare(plan.profile, plan.tree, plan.work / "obj", fleet=plan.fleet, finish=finish, report=report)
    return prepared, name(prepared.requests)


def build(plan: BuildPlan, prepared: Prepared, settings: BuildSettings, report: Callable[[str], None]) -> Built:
    """Compile, package and describe a prepared configuration. Raises BuildFailed, SourceUnavailable (full disk)."""
    objects = plan.work / "obj"
    drivers: list[DriverModule] = []

    def gate() -> None:
        for driver in plan.drivers:
            drivers.extend(build_driver(driver, plan.tree, objects, jobs=plan.jobs, report=report))

    task = Task(
        tree=plan.tree,
        objects=objects,
        settings=settings,
        key=ensure_key(plan.keys) if is_signed(prepared.requests) else None,
        expected=expected_objects(plan.tree.path, prepared.config),
        jobs=plan.jobs,
        sbom_tree=plan.sbom_tree,
    )
    compiled = compile_and_package(task, report, gate)
    return assemble(plan, prepared, settings, Results(compiled=compiled, drivers=drivers))


def assemble(plan: BuildPlan, prepared: Prepared, settings: BuildSettings, results: Results) -> Built:
    """Put the bundle together in `work`/<release>."""
    target = plan.work / settings.release
    with made_whole(target) as scratch:
        manifest = _fill(scratch, plan, prepared, settings, results)
    return Built(folder=target, manifest=manifest)


def _fill(
    scratch: Path, plan: BuildPlan, prepared: Prepared, settings: BuildSettings, results: Results
) -> dict[str, Any]:
    rows = []
    for kind, path in results.compiled.packages.items():
        shutil.move(path, scratch / path.name)
        rows.append(package_row(kind, scratch / path.name))
    (scratch / "config").write_text(prepared.text)
    if results.drivers:
        (scratch / "drivers").mkdir()
    for module in results.drivers:
        shutil.copy2(module.file, scratch / "drivers" / module.file.name)
    if results.compiled.sbom:
        (scratch / "sbom").mkdir()
    for path in results.compiled.sbom:
        shutil.move(path, scratch / "sbom" / path.name)
    manifest = make_manifest(
        prepared,
        settings,
        packages=rows,
        modules=results.compiled.modules,
        patches=plan.patches,
        compiler=compiler_version(),
        build=results.compiled.figures,
        drivers=[module.row() for module in results.drivers],
    )
    (scratch / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def package_row(kind: str, path: Path) -> dict[str, Any]:
    """A package as the manifest lists it."""
    return {"file": path.name, "sha256": sha256_of(path), "bytes": path.stat().st_size, "kind": kind}


def source_epoch_s(tree: SourceTree) -> int:
    """The date that the build writes into the kernel: that of the source's Makefile, as it was packed."""
    return int((tree.path / "Makefile").stat().st_mtime)


def is_signed(requests: Mapping[str, Request]) -> bool:
    """Whether the modules are signed, which takes a key."""
    return "CONFIG_MODULE_SIG" in requests and requests["CONFIG_MODULE_SIG"].value == "y"
