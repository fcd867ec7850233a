"""Compile and package: the step of a build that may run on another machine. An edge file; stdlib alone.

`python3 -m kanctl.kernel.build.remote PLAN_FOLDER` runs it from a folder that holds plan.json, `config`, the source
package, `patches/` and, for signed modules, the private key, which never stays there. What is done stays in `obj`.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from kanctl.errors import KanctlError
from kanctl.programs import run

from ..errors import BuildFailed
from ..source import SourcePackage, SourceTree, unpack
from .compile import compile_kernel, count_objects
from .package import make_packages
from .patches import Patch, patched_tree
from .settings import MODULE_KEY, BuildSettings

KEY = "module-signing.pem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is compiled, where, and how."""

    tree: SourceTree
    objects: Path
    settings: BuildSettings
    key: Path | None
    expected: int
    jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What the step made."""

    packages: Mapping[str, Path]
    modules: list[str]
    figures: Mapping[str, Any]


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
    figures = {
        "objects_compiled_now": done,
        "objects": count_objects(task.objects),
        "jobs": task.jobs,
        "compile_seconds": round(compiled_s, 1),
        "seconds": round(time.monotonic() - started_s, 1),
        "disk_bytes": disk_bytes(task.objects),
    }
    return Compiled(packages=packages, modules=module_names(task.objects), figures=figures)


def run_plan(folder: Path, report: Callable[[str], None]) -> Compiled:
    """Run the step as plan.json says, and write result.json. The key is removed, however it ends.

    Raises BuildFailed (another compiler too), SourceUnavailable (a damaged source, a full disk).
    """
    plan = json.loads((folder / "plan.json").read_text())
    objects = folder / "obj"
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    try:
        _require_compiler(plan["compiler"])
        tree = _planned_tree(folder, plan, report)
        _place_config(folder / "config", objects)
        settings = BuildSettings(**{name: plan[name] for name in ("version", "local_version", "revision", "epoch_s")})
        key = folder / KEY if plan["signed"] else None
        task = Task(
            tree=tree, objects=objects, settings=settings, key=key, expected=plan["expected"], jobs=plan["jobs"]
        )
        compiled = compile_and_package(task, report)
    finally:
        for path in (folder / KEY, objects / MODULE_KEY):
            path.unlink(missing_ok=True)
    packages = {kind: str(path) for kind, path in compiled.packages.items()}
    answer = {"packages": packages, "modules": compiled.modules, "figures": dict(compiled.figures)}
    result.write_text(json.dumps(answer, indent=2) + "\n")
    return compiled


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


def _require_compiler(wanted: str) -> None:
    found = compiler_version()
    if found != wanted:
        raise BuildFailed(
            f"the configuration was made for the compiler {wanted}, this machine has {found}",
            "build locally, or on a node with the same release",
        )


def _planned_tree(folder: Path, plan: Mapping[str, Any], report: Callable[[str], None]) -> SourceTree:
    package = SourcePackage(**{**plan["source"], "sources": tuple(plan["source"].get("sources", ()))})
    tree = unpack(package, cache=folder, kconfig_only=False, report=report)
    patches = [
        Patch(file=name, subject="kernel", versions="", reason="", upstream="", ends=date.max)
        for name in plan["patches"]
    ]
    return patched_tree(tree, patches, cache=folder, report=report, folder=folder / "patches")


def _place_config(config: Path, objects: Path) -> None:
    """Copy the configuration only when it differs: a newer file makes the build look at everything again."""
    objects.mkdir(parents=True, exist_ok=True)
    target = objects / ".config"
    if not target.is_file() or target.read_bytes() != config.read_bytes():
        shutil.copyfile(config, target)


def main(words: list[str]) -> int:
    """Progress on stdout, an error on stderr."""
    if len(words) != 1:
        print("usage: python3 -m kanctl.kernel.build.remote PLAN_FOLDER", file=sys.stderr)
        return 2
    try:
        run_plan(Path(words[0]).resolve(), lambda text: print(text, flush=True))
    except KanctlError as error:
        print(f"{error}\nnext: {error.next_step}" if error.next_step else error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
