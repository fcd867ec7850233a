"""What a bundle says of itself: the JSON beside the packages that installation, gate and comparison read. Pure."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import dotconfig
from ..errors import FragmentInvalid
from ..prepare import Prepared
from ..profile import FOLDER
from ..version import satisfies
from .patches import Patch
from .settings import BuildSettings

FORMAT = "kanctl-kernel-1"
PLACEHOLDER = re.compile(r"\{[a-z0-9_]+\}")


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


def fixed_arguments(name: str, version: tuple[int, ...], folder: Path = FOLDER) -> list[str]:
    """The arguments of a kernel/cmdline/*.args file that every node of this version gets: those without placeholders.

    The whole command line of a node, with its isolated cores, is made by the role node_tuning, whose filter is the one
    parser of these files; this reads only what a boot test can try.
    """
    arguments = []
    comments: list[str] = []
    for raw in (folder / "cmdline" / f"{name}.args").read_text().splitlines():
        line = raw.strip()
        if line.startswith("#"):
            comments.append(line.lstrip("# "))
            continue
        conditions = [text.partition(":")[2].strip() for text in comments if text.startswith("Kernel:")]
        is_for_all = not PLACEHOLDER.search(line) and not any(text.startswith("Only with:") for text in comments)
        if line and is_for_all and all(satisfies(version, text) for text in conditions):
            arguments.append(line)
        comments = []
    return arguments


def check_manifest(document: Any, where: Path) -> dict[str, Any]:
    """The document itself. Raises FragmentInvalid where it is no manifest of a bundle."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise FragmentInvalid(f"wanted a kernel bundle's manifest of the format {FORMAT} in {where}, found {found}")
    missing = [key for key in ("release", "config_sha256", "packages", "cmdline", "modprobe") if key not in document]
    if missing:
        raise FragmentInvalid(f"{where} lacks {', '.join(missing)}", "build the bundle again: kanctl kernel build")
    return document
