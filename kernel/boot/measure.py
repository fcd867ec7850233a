"""One kernel, one set of boot arguments: packed, booted, read, and kept, since the same boot gives the same figures.

An edge file. A measurement is found again by everything that decides it: kernel, arguments, modules, our own scripts.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kanctl import programs

from ..build.manifest import check_manifest
from ..errors import FragmentInvalid
from ..source import sha256_of
from ..stock import StockKernel, open_image, unpack_image
from .initramfs import BOOT_TOOLS, FOLDER, build_initramfs
from .qemu import Machine, boot
from .report import BootReport, read_report

PROGRESS = re.compile(r"kanctl: (init_ns|forkexec_ns|write_ns|module|driver|cyclictest)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A kernel to boot: a bundle's, or the distribution's own (without a manifest)."""

    name: str
    kernel: StockKernel
    manifest: Mapping[str, Any] | None = None

    @property
    def arguments(self) -> tuple[str, ...]:
        """The boot arguments that come with it."""
        return tuple(self.manifest["cmdline"]) if self.manifest else ()


def check_bundle(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle whose packages are what it promises. Raises FragmentInvalid."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise FragmentInvalid(
            f"wanted a kernel bundle with a manifest.json, found none in {folder}", "kanctl kernel build"
        )
    manifest = check_manifest(json.loads(path.read_text()), path)
    for row in manifest["packages"]:
        package = folder / row["file"]
        if not package.is_file() or sha256_of(package) != row["sha256"]:
            raise FragmentInvalid(f"{package} is missing or not what {path} promises", "build the bundle again")
    return manifest


def open_bundle(folder: Path, cache: Path) -> Subject:
    """The kernel of a bundle, its package unpacked in `cache`. Raises FragmentInvalid for what is no bundle."""
    manifest = check_bundle(folder)
    row = next(row for row in manifest["packages"] if row["kind"] == "image")
    package = folder / row["file"]
    target = cache / "unpacked" / row["sha256"][:16]
    if not target.is_dir():
        unpack_image(package, target)
    return Subject(name=manifest["release"], kernel=open_image(target), manifest=manifest)


def measure(
    subject: Subject,
    arguments: Sequence[str],
    *,
    modules: Sequence[str] = (),
    drivers: Sequence[Path] = (),
    cache: Path,
    machine: Machine,
    report: Callable[[str], None],
    again: bool = False,
) -> BootReport:
    """Boot a kernel once and read it; a boot that was done before is read from `cache`, unless `again`.

    Raises BootTestFailed where it does not reach its end, MissingToolError without QEMU or its helpers.
    """
    programs.require(BOOT_TOOLS, "the boot test")
    folder = cache / "boots"
    folder.mkdir(parents=True, exist_ok=True)
    console = folder / f"{_identity(subject, arguments, modules, drivers, machine)}.console"
    if again or not console.is_file():
        shown = " ".join(arguments) or "no further arguments"
        report(f"booting {subject.name} with {shown}")
        with tempfile.TemporaryDirectory(prefix="kanctl-boot-") as scratch:
            image = build_initramfs(subject.kernel, modules, drivers, Path(scratch))
            # Of its own, so that two boots at once do not write into each other's; kept when the boot fails.
            log = console.with_suffix(".failed")
            text, seconds = boot(subject.kernel.image, image, arguments, machine, log, _say_progress(report))
        report(f"{subject.name} ended after {seconds:.0f} s")
        console.write_text(text)
        log.unlink()
    return read_report(console.read_text())


def _identity(
    subject: Subject, arguments: Sequence[str], modules: Sequence[str], drivers: Sequence[Path], machine: Machine
) -> str:
    digest = hashlib.sha256()
    for path in (subject.kernel.image, FOLDER / "init.sh", FOLDER / "probe.c", *drivers):
        digest.update(path.read_bytes())
    digest.update(repr((list(arguments), list(modules), machine.memory_mib)).encode())
    return digest.hexdigest()[:24]


def _say_progress(report: Callable[[str], None]) -> Callable[[str], None]:
    def say(line: str) -> None:
        if PROGRESS.match(line):
            report(f"  {line.removeprefix('kanctl: ')}")

    return say
