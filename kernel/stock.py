"""The distribution's own kernel image of a version, unpacked: the reference for aliases, the baseline of comparisons.

An edge file. Nothing is installed; depmod writes the index files that the package leaves to its installation.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kanctl.programs import run

from . import apt
from .errors import SourceUnavailable
from .source import COMPLETE, check_sha256, made_whole, record, recorded, require_space

# An unpacked Debian 6.12 image with its modules takes 125 MB.
IMAGE_BYTES = 400_000_000
# Flavours that are no ordinary image.
OTHER_FLAVOURS = ("cloud", "rt", "dbg", "unsigned", "16k")


@dataclass(frozen=True, slots=True, kw_only=True)
class StockKernel:
    """An unpacked kernel image: vmlinuz, config and modules with their index files."""

    release: str
    root: Path

    @property
    def image(self) -> Path:
        """The bootable kernel."""
        return self.root / "boot" / f"vmlinuz-{self.release}"

    @property
    def config(self) -> Path:
        """Its .config."""
        return self.root / "boot" / f"config-{self.release}"

    @property
    def modules(self) -> Path:
        """Its folder under lib/modules."""
        found = self.root / "lib" / "modules" / self.release
        return found if found.is_dir() else self.root / "usr" / "lib" / "modules" / self.release


def fetch_stock(series: str, *, cache: Path, state: apt.AptState, report: Callable[[str], None]) -> StockKernel:
    """The distribution's amd64 image of a series (6.12), from the cache or downloaded. Raises SourceUnavailable."""
    known = next((found for found in (recorded(cache, name) for name in _names_in_cache(cache, series)) if found), None)
    if known is None:
        report(f"looking up the distribution's kernel image of {series}")
        apt.refresh(state)
        name, version = _newest_image(state, series)
        report(f"downloading {name} {version}")
        known = record(cache, apt.download(state, name, version, cache / "packages"), name, version, state.sources)
    target = cache / "stock" / known.package.removeprefix("linux-image-")
    if not (target / COMPLETE).is_file():
        check_sha256(cache / "packages" / known.file, known.sha256)
        require_space(cache, IMAGE_BYTES)
        report(f"unpacking {known.file}")
        unpack_image(cache / "packages" / known.file, target)
    return open_image(target)


def unpack_image(deb: Path, target: Path) -> None:
    """Unpack a kernel package and write its modules.dep and modules.alias; all or nothing."""
    with made_whole(target) as scratch:
        run(["dpkg-deb", "-x", str(deb), str(scratch)])
        if not (scratch / "lib").exists():  # merged /usr: depmod looks under lib
            (scratch / "lib").symlink_to("usr/lib")
        run(["depmod", "-b", str(scratch), open_image(scratch).release])
        (scratch / COMPLETE).touch()


def open_image(root: Path) -> StockKernel:
    """The kernel in an unpacked package. Raises SourceUnavailable where there is not exactly one."""
    found = sorted((root / "boot").glob("vmlinuz-*"))
    if len(found) != 1:
        raise SourceUnavailable(f"wanted one boot/vmlinuz-* in {root}, found {len(found)}")
    return StockKernel(release=found[0].name.removeprefix("vmlinuz-"), root=root)


def _names_in_cache(cache: Path, series: str) -> list[str]:
    names = {path.name.split("_")[0] for path in (cache / "packages").glob(f"linux-image-{series}.*.json")}
    return sorted(name for name in names if _is_plain(name))


def _newest_image(state: apt.AptState, series: str) -> tuple[str, str]:
    """(package, version) of the newest plain image of a series."""
    pattern = rf"^linux-image-{re.escape(series)}\.[0-9.+a-z-]*-amd64$"
    names = [
        line.split(" - ")[0] for line in run(["apt-cache", *state.options(), "search", "-n", pattern]).splitlines()
    ]
    best: tuple[str, str] | None = None
    for name in filter(_is_plain, names):
        version = apt.newest(state, name)
        if best is None or apt.is_newer(version, best[1]):
            best = (name, version)
    if best is None:
        raise SourceUnavailable(
            f"wanted an image linux-image-{series}.*-amd64, found none in {', '.join(state.sources)}"
        )
    return best


def _is_plain(name: str) -> bool:
    return not any(part in name.split("-") for part in OTHER_FLAVOURS)
