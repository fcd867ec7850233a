"""Compile, package and list a configured kernel: the one step of a build that may run on another machine. An edge file.

It imports the standard library alone, besides kanctl's own files.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kanctl.programs import run

from ..source import SourceTree
from .compile import compile_kernel, count_objects
from .package import make_packages
from .sbom import write_sbom
from .settings import BuildSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is compiled, where, and how."""

    tree: SourceTree
    objects: Path
    settings: BuildSettings
    key: Path | None
    expected: int
    jobs: int
    # The tree whose script writes the bill of materials; None: none is written.
    sbom_tree: SourceTree | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What the step made."""

    packages: Mapping[str, Path]
    modules: list[str]
    figures: Mapping[str, Any]
    sbom: Sequence[Path] = ()


def compile_and_package(
    task: Task, report: Callable[[str], None], gate: Callable[[], None] = lambda: None
) -> Compiled:  # fmt: skip
    """Compile, let `gate` look at the objects, package. Raises BuildFailed, SourceUnavailable (full disk)."""
    started_s = time.monotonic()
    report(f"compiling {task.settings.release} with {task.jobs} jobs")
    done = compile_kernel(
        task.tree, task.objects, task.settings,
        key=task.key, expected=task.expected, jobs=task.jobs, report=report,
    )  # fmt: skip
    compiled_s = time.monotonic() - started_s
    gate()
    packages = make_packages(task.tree, task.objects, task.settings, jobs=task.jobs, report=report)
    sbom = []
    if task.sbom_tree is not None:
        sbom = write_sbom(task.tree, task.sbom_tree, task.objects, task.objects.with_name("sbom"), report)
    figures = {
        "objects_compiled_now": done,
        "objects": count_objects(task.objects),
        "jobs": task.jobs,
        "compile_seconds": round(compiled_s, 1),
        "seconds": round(time.monotonic() - started_s, 1),
        "disk_bytes": disk_bytes(task.objects),
    }
    return Compiled(packages=packages, modules=module_names(task.objects), figures=figures, sbom=sbom)


def compiler_version() -> str:
    """The first line of `gcc --version`."""
    return run(["gcc", "--version"]).splitlines()[0]


def module_names(objects: Path) -> list[str]:
    """The modules that a build made, from modules.order."""
    lines = (objects / "modules.order").read_text().split()
    return sorted(Path(line).stem.replace("-", "_") for line in lines)


def disk_bytes(folder: Path) -> int:
    """What a folder takes on disk. Shell: du -sB1 FOLDER."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if not path.is_dir())
