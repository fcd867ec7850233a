"""Compile a configured kernel, with progress, and go on where an interrupted build stopped. An edge file."""

import difflib
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kanctl import programs
from kanctl.programs import ProgramFailed, run_logged

from ..errors import BuildFailed
from ..source import SourceTree, require_space
from ..toolchain import tool_words
from .settings import MODULE_KEY, BuildSettings

# Program -> Debian package, for a whole build with its packages.
BUILD_TOOLS = {
    "make": "make",
    "gcc": "gcc",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "rsync": "rsync",
    "cpio": "cpio",
    "depmod": "kmod",
    "xz": "xz-utils",
    "zstd": "zstd",
    "openssl": "openssl",
    "dh_builddeb": "debhelper",
    "dpkg-deb": "dpkg",
    "dpkg-architecture": "dpkg-dev",
    "patch": "patch",
    "pahole": "dwarves",
}
# Headers that no program on PATH shows: path under /usr/include (any architecture) -> Debian package.
BUILD_HEADERS = {"libelf.h": "libelf-dev", "openssl/evp.h": "libssl-dev"}
# Measured on 6.12: 0.6 GiB of objects for the largest profile without debug information, and its packages.
OBJECT_BYTES = 1_500_000_000
# `  CC [M]  drivers/net/foo.o`: a line of make that ends an object.
OBJECT_LINE = re.compile(r"^\s+(CC|AS)( \[M\])?\s+(\S+\.o)$")
# An ordinary object takes 0.9 s of CPU time; how often progress is said.
REPORT_EVERY_S = 10


@dataclass(slots=True, kw_only=True)
class Progress:
    """Objects done of objects expected, said at most every ten seconds."""

    expected: int
    report: Callable[[str], None]
    done: int = 0
    _said_s: float = 0.0

    def line(self, text: str) -> None:
        """Take one line of make."""
        if not OBJECT_LINE.match(text):
            return
        self.done += 1
        now = time.monotonic()
        if now - self._said_s >= REPORT_EVERY_S:
            self._said_s = now
            share = f" of about {self.expected}" if self.expected >= self.done else ""
            self.report(f"{self.done}{share} objects: {text.split()[-1]}")


def require_build_tools() -> None:
    """Raises MissingToolError with the one apt line for all that is missing."""
    headers = [Path("/usr/include"), *Path("/usr/include").glob("*-linux-gnu")]
    absent = {
        name: package
        for name, package in BUILD_HEADERS.items()
        if not any((folder / name).is_file() for folder in headers)
    }
    # A header has no program; asked for by its file name, it is never found on PATH, and so is named as missing.
    programs.require(BUILD_TOOLS | absent, "building a kernel")


def compile_kernel(
    tree: SourceTree, output: Path, settings: BuildSettings, *, key: Path | None, expected: int, jobs: int,
    report: Callable[[str], None],
) -> int:  # fmt: skip
    """Build bzImage and modules in `output`, which holds a .config; gives the number of objects compiled now.

    Objects that are there and up to date are kept, so the same call after an interruption goes on.

    Raises:
        BuildFailed: make ended with an error; the log in `output`/build.log has all it said.
    """
    require_build_tools()
    require_space(output, OBJECT_BYTES)
    if key is not None:
        _place_key(key, output / MODULE_KEY)
    progress = Progress(expected=expected, report=report)
    wanted = (output / ".config").read_text()
    words = ["make", "-C", str(tree.path), f"O={output.resolve()}", f"-j{jobs}", *tool_words(output)]
    words += ["bzImage", "modules"]
    try:
        run_logged(words, log=output / "build.log", on_line=progress.line, environment=settings.environment())
    except ProgramFailed as error:
        raise BuildFailed(
            f"the build of {settings.release} stopped:\n  {error}",
            f"see {output}/build.log; the same command goes on from there",
        ) from error
    _require_config(wanted, (output / ".config").read_text(), output)
    return progress.done


def _require_config(wanted: str, found: str, output: Path) -> None:
    """Raises BuildFailed where make wrote another configuration than the verified one: a tool differs."""
    if found != wanted:
        lines = list(difflib.unified_diff(wanted.splitlines(), found.splitlines(), n=0, lineterm=""))[2:]
        changed = "\n  ".join(line for line in lines if not line.startswith("@@"))
        raise BuildFailed(
            f"make changed {output}/.config, because a tool here differs from where it was made:\n  {changed}",
            "install the tool that these lines name, in the same version",
        )


def count_objects(output: Path) -> int:
    """How many objects a build folder holds. Shell: find OUTPUT -name '*.o' | wc -l, without linked ones."""
    return sum(1 for path in output.rglob("*.o") if not path.name.endswith((".mod.o", "built-in.o")))


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0))


def _place_key(key: Path, target: Path) -> None:
    """Copy the key only when it differs: a newer file would build the certificates again."""
    if not target.is_file() or target.read_bytes() != key.read_bytes():
        shutil.copyfile(key, target)
        target.chmod(0o600)
