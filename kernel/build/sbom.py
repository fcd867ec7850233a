"""A bill of materials of a finished build, by the kernel's own script (scripts/sbom, in the tree from 7.3 on).

An edge file. The script reads the .cmd files that a build leaves, so one of a newer tree serves an older build.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from kanctl.programs import ProgramFailed, run_logged

from ..errors import BuildFailed
from ..source import SourceTree

SCRIPT = Path("scripts/sbom/sbom.py")
ROOTS = ("arch/x86/boot/bzImage",)


def write_sbom(
    tree: SourceTree, script_tree: SourceTree, output: Path, target: Path, report: Callable[[str], None]
) -> list[Path]:
    """SPDX 3.0.1 documents of the source, the build and its output, in `target`. Raises BuildFailed."""
    target.mkdir(parents=True, exist_ok=True)
    roots = output / "sbom-roots.txt"
    modules = [line.removesuffix(".o") + ".ko" for line in (output / "modules.order").read_text().split()]
    roots.write_text("\n".join([*ROOTS, *modules]) + "\n")
    report("writing the bill of materials")
    words = [
        *(sys.executable, str(script_tree.path / SCRIPT)),
        *("--src-tree", str(tree.path), "--obj-tree", str(output.resolve()), "--roots-file", str(roots)),
        *("--generate-spdx", "--output-directory", str(target.resolve()), "--do-not-fail-on-unknown-build-command"),
    ]
    try:
        run_logged(words, log=output / "sbom.log", cwd=output, environment={"SRCARCH": "x86"})
    except ProgramFailed as error:
        raise BuildFailed(f"the bill of materials failed:\n  {error}", f"see {output}/sbom.log") from error
    return sorted(target.glob("*.spdx.json"))
