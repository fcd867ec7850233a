"""One build from a profile to a bundle: prepare, compile, package, describe. An edge file; each step stands elsewhere.

A bundle is complete or not there: it is put together beside its place and moved.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kanctl.programs import run

from ..fragment import Request
from ..prepare import Fleet, Prepared, prepare
from ..profile import Profile
from ..source import SourceTree, sha256_of
from .compile import compile_kernel, count_objects, require_build_tools
from .drivers import DriverModule, DriverSource, build_driver
from .manifest import make_manifest
from .objects import expected_objects
from .package import make_packages
from .patches import Patch, patches_digest
from .sbom import write_sbom
from .settings import BuildSettings, inputs_digest, local_version
from .signing import ensure_key


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

    packages: Mapping[str, Path]
    drivers: Sequence[DriverModule]
    figures: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A finished bundle."""

    folder: Path
    manifest: Mapping[str, Any]


def prepare_build(plan: BuildPlan, report: Callable[[str], None]) -> tuple[Prepared, BuildSettings]:
    """The verified configuration in the build folder, and the kernel's name, which depends on all that was asked."""
    require_build_tools()
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
        return name(requests).fixed_config(signed=_is_signed(requests))

    prepared = prepare(plan.profile, plan.tree, plan.work / "obj", fleet=plan.fleet, finish=finish, report=report)
    return prepared, name(prepared.requests)


def build(plan: BuildPlan, prepared: Prepared, settings: BuildSettings, report: Callable[[str], None]) -> Built:
    """Compile, package and describe a prepared configuration. Raises BuildFailed, SourceUnavailable (full disk)."""
    started_s = time.monotonic()
    objects = plan.work / "obj"
    key = ensure_key(plan.keys) if _is_signed(prepared.requests) else None
    expected = expected_objects(plan.tree.path, prepared.config)
    report(f"compiling {settings.release} with {plan.jobs} jobs")
    compiled = compile_kernel(plan.tree, objects, settings, key=key, expected=expected, jobs=plan.jobs, report=report)
    compiled_s = time.monotonic() - started_s
    drivers = [
        module
        for driver in plan.drivers
        for module in build_driver(driver, plan.tree, objects, jobs=plan.jobs, report=report)
    ]
    packages = make_packages(plan.tree, objects, settings, jobs=plan.jobs, report=report)
    figures = {
        "objects_compiled_now": compiled,
        "objects": count_objects(objects),
        "jobs": plan.jobs,
        "compile_seconds": round(compiled_s, 1),
        "seconds": round(time.monotonic() - started_s, 1),
        "disk_bytes": disk_bytes(objects),
    }
    return assemble(plan, prepared, settings, Results(packages=packages, drivers=drivers, figures=figures), report)


def assemble(
    plan: BuildPlan, prepared: Prepared, settings: BuildSettings, results: Results, report: Callable[[str], None]
) -> Built:
    """Put the bundle together in `work`/<release>."""
    target = plan.work / settings.release
    scratch = target.with_name(f".{target.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    rows = []
    for kind, path in results.packages.items():
        shutil.move(path, scratch / path.name)
        rows.append(package_row(kind, scratch / path.name))
    (scratch / "config").write_text(prepared.text)
    if results.drivers:
        (scratch / "drivers").mkdir()
    for module in results.drivers:
        shutil.copy2(module.file, scratch / "drivers" / module.file.name)
    objects = plan.work / "obj"
    if plan.sbom_tree is not None:
        write_sbom(plan.tree, plan.sbom_tree, objects, scratch / "sbom", report)
    manifest = make_manifest(
        prepared,
        settings,
        packages=rows,
        modules=module_names(objects),
        patches=plan.patches,
        compiler=compiler_version(),
        build=results.figures,
        drivers=[module.row() for module in results.drivers],
    )
    (scratch / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    shutil.rmtree(target, ignore_errors=True)
    scratch.rename(target)
    return Built(folder=target, manifest=manifest)


def package_row(kind: str, path: Path) -> dict[str, Any]:
    """A package as the manifest lists it."""
    return {"file": path.name, "sha256": sha256_of(path), "bytes": path.stat().st_size, "kind": kind}


def module_names(objects: Path) -> list[str]:
    """The modules that a build made, from modules.order."""
    lines = (objects / "modules.order").read_text().split()
    return sorted(Path(line).stem.replace("-", "_") for line in lines)


def compiler_version() -> str:
    """The first line of `gcc --version`."""
    return run(["gcc", "--version"]).splitlines()[0]


def source_epoch_s(tree: SourceTree) -> int:
    """The date that the build writes into the kernel: that of the source's Makefile, as it was packed."""
    return int((tree.path / "Makefile").stat().st_mtime)


def disk_bytes(folder: Path) -> int:
    """What a folder takes on disk. Shell: du -sB1 FOLDER."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if not path.is_dir())


def _is_signed(requests: Mapping[str, Request]) -> bool:
    return "CONFIG_MODULE_SIG" in requests and requests["CONFIG_MODULE_SIG"].value == "y"
