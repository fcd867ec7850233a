"""What a bundle says of itself: the JSON beside the packages that installation, gate and comparison read. Pure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import dotconfig
from ..boot_arguments import fixed_arguments
from ..errors import FragmentInvalid
from ..prepare import Prepared
from .patches import Patch
from .settings import BuildSettings

FORMAT = "kanctl-kernel-1"


def make_manifest(
    prepared: Prepared,
    settings: BuildSettings,
    *,
    packages: Sequence[Mapping[str, Any]],
    modules: Sequence[str],
    patches: Sequence[Patch],
    compiler: str,
    build: Mapping[str, Any],
    drivers: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The manifest of one build; every key is described in docs/kernel.md."""
    profile, source = prepared.profile, prepared.tree.package
    return {
        "format": FORMAT,
        "release": settings.release,
        "version": settings.version,
        "profile": profile.name,
        "config_sha256": dotconfig.digest(prepared.text),
        "packages": list(packages),
        "cmdline": fixed_arguments(profile.cmdline, prepared.tree.numbers) if profile.cmdline else [],
        "modprobe": [f"options {row.option}" for row in profile.modprobe],
        "modules": list(modules),
        "expect_modules": list(profile.expect_modules),
        "preempt": profile.preempt,
        "gpu": profile.gpu,
        "source": {
            "version": prepared.tree.version,
            "package": source.package if source else None,
            "package_version": source.version if source else None,
            "sha256": source.sha256 if source else None,
        },
        "drivers": list(drivers),
        "patches": [{"file": patch.file, "reason": patch.reason} for patch in patches],
        "waived": {line.request.symbol: line.waiver for line in prepared.verification.lines if line.waiver},
        "nodes": sorted(prepared.fleet.promise.nodes) if prepared.fleet else [],
        "compiler": compiler,
        "source_date_epoch": settings.epoch_s,
        "build": dict(build),
    }


def check_manifest(document: Any, where: Path) -> dict[str, Any]:
    """The document itself. Raises FragmentInvalid where it is no manifest of a bundle."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise FragmentInvalid(f"wanted a kernel bundle's manifest of the format {FORMAT} in {where}, found {found}")
    missing = [key for key in ("release", "config_sha256", "packages", "cmdline", "modprobe") if key not in document]
    if missing:
        raise FragmentInvalid(f"{where} lacks {', '.join(missing)}", "build the bundle again: kanctl kernel build")
    return document
