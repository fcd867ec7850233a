"""Two bundles of the same inputs, byte for byte: which files of their packages differ, if any. It unpacks packages.

Source: reproducible-builds.org; Documentation/kbuild/reproducible-builds.rst
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from kanctl.programs import run

from ..source import sha256_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """How two bundles compare."""

    packages: int
    identical_packages: int
    # `package: path` of every file that is not the same in both.
    differing: tuple[str, ...]

    @property
    def is_identical(self) -> bool:
        """Whether every package is the same to the last byte."""
        return self.packages == self.identical_packages


def compare_bundles(first: Path, second: Path) -> Repeat:
    """Compare the packages of two bundles; the files inside are looked at only where packages differ."""
    names = sorted({path.name for folder in (first, second) for path in folder.glob("*.deb")})
    same = 0
    differing: list[str] = []
    for name in names:
        pair = [folder / name for folder in (first, second)]
        if not all(path.is_file() for path in pair):
            differing.append(f"{name}: in one bundle only")
        elif sha256_of(pair[0]) == sha256_of(pair[1]):
            same += 1
        else:
            found = differing_files(*pair)
            differing += [f"{name}: {path}" for path in found] or [f"{name}: its container, no file inside"]
    return Repeat(packages=len(names), identical_packages=same, differing=tuple(differing))


def differing_files(first: Path, second: Path) -> list[str]:
    """The paths, control files included, that differ between two packages. Shell: diffoscope FIRST SECOND."""
    with tempfile.TemporaryDirectory(prefix="kanctl-twice-") as scratch:
        digests = [_digests(package, Path(scratch) / str(number)) for number, package in enumerate((first, second))]
    one, other = digests
    return sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))


def _digests(package: Path, folder: Path) -> dict[str, str]:
    run(["dpkg-deb", "-R", str(package), str(folder)])
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else sha256_of(path)
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }
