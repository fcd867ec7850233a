"""What a build node runs: a plan folder becomes packages and result.json. An edge file; the standard library alone.

`python3 -m kanctl.kernel.build.remote PLAN_FOLDER`, with PYTHONPATH=PLAN_FOLDER/code.zip. plan_folder.py writes such a
folder, the role kernel_build brings it to a node. What is done stays in `obj`, so the same call goes on; the private
key of signed modules never stays.
"""

import json
import os
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from kanctl.errors import KanctlError

from ..errors import BuildFailed
from ..source import SourcePackage, SourceTree, unpack
from .compile import cores
from .patches import Patch, patched_tree
from .settings import MODULE_KEY, BuildSettings
from .step import Compiled, Task, compile_and_package, compiler_version

KEY = "module-signing.pem"
PLAN = "plan.json"
CONFIG = "config"
RESULT = "result.json"
SBOM_SCRIPTS = "sbom.zip"


def run_plan(folder: Path, report: Callable[[str], None]) -> Compiled:
    """Run the step as plan.json says, and write result.json. The key is removed, however it ends.

    Raises BuildFailed (another compiler too), SourceUnavailable (a damaged source, a full disk).
    """
    plan = json.loads((folder / PLAN).read_text())
    result = folder / RESULT
    result.unlink(missing_ok=True)
    try:
        _require_compiler(plan["compiler"])
        compiled = compile_and_package(_task(folder, plan, report), report)
    finally:
        for path in (folder / KEY, folder / "obj" / MODULE_KEY):
            path.unlink(missing_ok=True)
    result.write_text(json.dumps(_answer(compiled), indent=2) + "\n")
    return compiled


def _task(folder: Path, plan: Mapping[str, Any], report: Callable[[str], None]) -> Task:
    tree = _planned_tree(folder, plan, report)
    _place_config(folder / CONFIG, folder / "obj")
    return Task(
        tree=tree,
        objects=folder / "obj",
        settings=BuildSettings(**{name: plan[name] for name in ("version", "local_version", "revision", "epoch_s")}),
        key=folder / KEY if plan["signed"] else None,
        expected=plan["expected"],
        jobs=plan["jobs"] or cores(),
        sbom_tree=_sbom_tree(folder, tree),
    )


def _answer(compiled: Compiled) -> dict[str, Any]:
    return {
        "packages": {kind: str(path) for kind, path in compiled.packages.items()},
        "sbom": [str(path) for path in compiled.sbom],
        "modules": compiled.modules,
        "figures": dict(compiled.figures),
    }


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


def _sbom_tree(folder: Path, tree: SourceTree) -> SourceTree | None:
    """The scripts that write the bill of materials, where the plan brings them; they stand in for their own tree."""
    archive = folder / SBOM_SCRIPTS
    if not archive.is_file():
        return None
    target = folder / "sbom-scripts"
    shutil.rmtree(target, ignore_errors=True)
    shutil.unpack_archive(archive, target)
    return SourceTree(path=target, version=tree.version, package=None)


def _place_config(config: Path, objects: Path) -> None:
    """Copy the configuration only when it differs: a newer file makes the build look at everything again."""
    objects.mkdir(parents=True, exist_ok=True)
    target = objects / ".config"
    if not target.is_file() or target.read_bytes() != config.read_bytes():
        shutil.copyfile(config, target)


def say(text: str) -> None:
    """Progress on stdout, and to systemd where it runs this. Shell: systemctl show --property=StatusText UNIT."""
    print(text, flush=True)
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
            # An abstract name begins with @. Source: sd_notify(3).
            door.sendto(f"STATUS={text}".encode(), address.replace("@", "\0", 1))


def main(words: list[str]) -> int:
    """Progress on stdout, an error on stderr."""
    if len(words) != 1:
        print("usage: python3 -m kanctl.kernel.build.remote PLAN_FOLDER", file=sys.stderr)
        return 2
    try:
        run_plan(Path(words[0]).resolve(), say)
    except KanctlError as error:
        print(f"{error}\nnext: {error.next_step}" if error.next_step else error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
