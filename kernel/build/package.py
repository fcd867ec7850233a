"""Debian packages of a compiled kernel, by the tree's own packaging, with the one date taken from the clock fixed.

An edge file. `make bindeb-pkg` would do the same plus two packages that nobody installs, and write today into the
changelog; its steps are run one by one instead.
"""

import re
from collections.abc import Callable
from pathlib import Path

from kanctl.programs import ProgramFailed, run_logged

from ..errors import BuildFailed
from ..source import SourceTree
from ..toolchain import tool_words
from .settings import BuildSettings

CHANGELOG_END = re.compile(r"^( -- .*>)  .*$", re.MULTILINE)


def make_packages(
    tree: SourceTree, output: Path, settings: BuildSettings, *, jobs: int, report: Callable[[str], None]
) -> dict[str, Path]:
    """The packages `image` and `headers` of the kernel compiled in `output`; they lie beside that folder.

    Raises BuildFailed with the last lines of the packaging tools.
    """
    log = output / "package.log"
    tools = tool_words(output)
    # As make hands them on to its own children: the packaging rules call make again, without our words.
    environment = {**settings.environment(), "MAKEFLAGS": " ".join([f"-j{jobs}", "--", *tools])}
    report("writing the Debian packages")
    make = ["make", "-C", str(tree.path), f"O={output.resolve()}"]
    try:
        run_logged(
            [*make, "run-command", "KBUILD_RUN_COMMAND=+$(srctree)/scripts/package/mkdebian"],
            log=log,
            environment=environment,
        )
        changelog = output / "debian" / "changelog"
        changelog.write_text(fix_date(changelog.read_text(), settings.changelog_date()))
        run_logged(
            ["make", "-f", "debian/rules", "binary-image", "binary-headers"],
            log=log,
            cwd=output,
            environment=environment,
        )
    except ProgramFailed as error:
        raise BuildFailed(f"packaging {settings.release} failed:\n  {error}", f"see {log}") from error
    return {kind: _find(output.parent, f"linux-{kind}-{settings.release}", settings) for kind in ("image", "headers")}


def fix_date(changelog: str, date: str) -> str:
    """A Debian changelog with its date replaced."""
    return CHANGELOG_END.sub(rf"\1  {date}", changelog)


def _find(folder: Path, package: str, settings: BuildSettings) -> Path:
    path = folder / f"{package}_{settings.package_version}_amd64.deb"
    if not path.is_file():
        raise BuildFailed(f"wanted {path} after packaging, found none")
    return path
