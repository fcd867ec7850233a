"""Kernel source trees: fetched as the distribution's package, checked against its recorded checksum, unpacked once.

Two forms of each: the whole tree for builds, and the Kconfig files alone, enough to check a configuration against a
version that nobody builds yet. An edge file: it downloads, unpacks and reads the disk.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from kanctl.programs import run

from . import apt
from .errors import SourceUnavailable
from .version import parse_release

# What merging, `make olddefconfig` and kconfiglib read; no C file but the tools' own. See KERNEL in docs/kernel.md.
KCONFIG_PATTERNS = ("*/Kconfig*", "*/scripts/*", "*/Makefile", "*/Kbuild*", "*/arch/x86/Makefile*")
# The unpacked 6.12 tree takes 1.64 GiB; the Kconfig files alone 50 MiB.
TREE_BYTES = 1_900_000_000
COMPLETE = ".kanctl-complete"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePackage:
    """A downloaded source package and what it must hash to."""

    file: str
    package: str
    version: str
    sha256: str
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTree:
    """An unpacked kernel tree."""

    path: Path
    version: str
    package: SourcePackage | None
    kconfig_only: bool = False

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version as numbers."""
        return parse_release(self.version)[:3]


def fetch(
    series: str, *, cache: Path, state: apt.AptState, kconfig_only: bool, report: Callable[[str], None]
) -> SourceTree:
    """The newest source of a series (6.12) that the state's sources offer, unpacked in `cache`.

    A version that is in the cache already is not fetched again, and works without a network.

    Raises:
        SourceUnavailable: nothing offers it, a checksum is wrong, or the disk has no room.
    """
    known = fetch_package(f"linux-source-{series}", cache=cache, state=state, report=report)
    return unpack(known, cache=cache, kconfig_only=kconfig_only, report=report)


def fetch_package(name: str, *, cache: Path, state: apt.AptState, report: Callable[[str], None]) -> SourcePackage:
    """A package by name, from the cache or else the newest that the state offers. Raises SourceUnavailable."""
    known = recorded(cache, name)
    if known is not None:
        return known
    report(f"looking up {name}")
    apt.refresh(state)
    version = apt.newest(state, name)
    report(f"downloading {name} {version}")
    return record(cache, apt.download(state, name, version, cache / "packages"), name, version, state.sources)


def recorded(cache: Path, package: str) -> SourcePackage | None:
    """The newest package of this name in the cache, as noted when it was downloaded; None without one."""
    best: SourcePackage | None = None
    for path in sorted((cache / "packages").glob(f"{package}_*.json")):
        row = json.loads(path.read_text())
        found = SourcePackage(**{**row, "sources": tuple(row["sources"])})
        if (cache / "packages" / found.file).is_file() and (best is None or apt.is_newer(found.version, best.version)):
            best = found
    return best


def record(cache: Path, deb: Path, package: str, version: str, sources: tuple[str, ...]) -> SourcePackage:
    """Note what apt has just checked, so that a file damaged later is seen."""
    note = SourcePackage(file=deb.name, package=package, version=version, sha256=sha256_of(deb), sources=sources)
    (cache / "packages" / f"{package}_{version.replace(':', '%3a')}.json").write_text(
        json.dumps(asdict(note), indent=2)
    )
    return note


def unpack(package: SourcePackage, *, cache: Path, kconfig_only: bool, report: Callable[[str], None]) -> SourceTree:
    """The tree of a downloaded package; unpacked beside its place and moved, so half a tree is never used."""
    target = cache / ("kconfig" if kconfig_only else "source") / package.version.replace(":", "%3a")
    if not (target / COMPLETE).is_file():
        deb = cache / "packages" / package.file
        check_sha256(deb, package.sha256)
        require_space(cache, TREE_BYTES if not kconfig_only else TREE_BYTES // 4)
        report(f"unpacking {package.file}" + (" (Kconfig files only)" if kconfig_only else " (1.6 GiB)"))
        with made_whole(target) as scratch:
            _unpack_tarball(deb, scratch, kconfig_only)
            (scratch / COMPLETE).touch()
    return SourceTree(path=target, version=tree_version(target), package=package, kconfig_only=kconfig_only)


@contextmanager
def made_whole(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that takes its place when the block ends well, and otherwise goes."""
    scratch = target.with_name(f".{target.name}.part")
    for folder in (scratch, target):
        shutil.rmtree(folder, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def open_tree(path: Path) -> SourceTree:
    """A source tree of the user's own. Raises SourceUnavailable where it is none, or was built in."""
    if not (path / "Kconfig").is_file() or not (path / "Makefile").is_file():
        raise SourceUnavailable(f"wanted an unpacked kernel tree with Makefile and Kconfig, found none at {path}")
    if (path / ".config").exists() or (path / "include/config").exists():
        raise SourceUnavailable(
            f"{path} was configured in place; kanctl builds outside the tree and make refuses to mix the two",
            f"make -C {path} mrproper",
        )
    has_code = (path / "init" / "main.c").is_file()
    return SourceTree(path=path.resolve(), version=tree_version(path), package=None, kconfig_only=not has_code)


def tree_version(path: Path) -> str:
    """`6.12.117` as the first lines of the tree's Makefile say. Shell: make -s -C TREE kernelversion."""
    text = (path / "Makefile").read_text(errors="replace")
    values: dict[str, str] = dict(
        re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *= *(\S*)$", text, re.MULTILINE)
    )
    if not {"VERSION", "PATCHLEVEL", "SUBLEVEL"} <= set(values):
        raise SourceUnavailable(f"wanted VERSION, PATCHLEVEL and SUBLEVEL in {path}/Makefile, found {sorted(values)}")
    return "{VERSION}.{PATCHLEVEL}.{SUBLEVEL}".format(**values) + values.get("EXTRAVERSION", "")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file. Shell: sha256sum FILE."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, wanted: str) -> None:
    """Raises SourceUnavailable where a file is not what it was."""
    found = sha256_of(path)
    if found != wanted:
        raise SourceUnavailable(
            f"{path} has the checksum {found}, wanted {wanted}: it changed after its download",
            f"rm {path} and run the same command again",
        )


def require_space(folder: Path, wanted_bytes: int) -> None:
    """Raises SourceUnavailable where a disk has less free than wanted. Shell: df -h FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < wanted_bytes:
        raise SourceUnavailable(
            f"wanted {wanted_bytes / 1e9:.1f} GB free on the disk of {folder}, found {free_bytes / 1e9:.1f} GB",
            "free some space, or name another folder with --cache",
        )


def _unpack_tarball(deb: Path, target: Path, kconfig_only: bool) -> None:
    inner = target / ".deb"
    run(["dpkg-deb", "-x", str(deb), str(inner)])
    tarballs = sorted(inner.glob("usr/src/*.tar.*"))
    if len(tarballs) != 1:
        raise SourceUnavailable(f"wanted one tarball under usr/src in {deb}, found {len(tarballs)}")
    only = ["--wildcards", *KCONFIG_PATTERNS] if kconfig_only else []
    run(["tar", "-C", str(target), "--strip-components=1", "-xf", str(tarballs[0]), *only])
    shutil.rmtree(inner)
