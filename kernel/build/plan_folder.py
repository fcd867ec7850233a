"""Writes the plan folder that a build node works from: everything but the private key. An edge file.

The same inputs give the same files, so a second run copies nothing. remote.py reads what is written here.
"""

import json
import shutil
import zipfile
from dataclasses import asdict
from pathlib import Path

from kanctl import programs

from ..errors import SourceUnavailable
from ..prepare import Prepared
from ..source import made_whole
from .objects import expected_objects
from .patches import FOLDER as PATCHES
from .remote import CONFIG, PLAN, SBOM_SCRIPTS
from .run import BuildPlan, is_signed
from .sbom import SCRIPT
from .settings import BuildSettings
from .step import compiler_version

CODE = "code.zip"
# Zip files hold times from here on; all entries get this one, so that equal files make equal archives.
ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_plan(
    folder: Path, plan: BuildPlan, prepared: Prepared, settings: BuildSettings, *, packages: Path, jobs: int | None
) -> None:
    """Make `folder` the plan of a prepared build.

    Args:
        packages: the folder in which the source's package lies.
        jobs: compilations at once; None: one for each core of the node.

    Raises SourceUnavailable for a tree that came from no package: its files stand nowhere with a checksum.
    """
    package = plan.tree.package
    if package is None:
        raise SourceUnavailable(
            f"a build node gets its source as the distribution's package; {plan.tree.path} is a tree of your own",
            "--source with a series such as 6.12, or build without --on",
        )
    with made_whole(folder) as scratch:
        document = {
            **asdict(settings),
            "jobs": jobs,
            "signed": is_signed(prepared.requests),
            "expected": expected_objects(plan.tree.path, prepared.config),
            "compiler": compiler_version(),
            "source": asdict(package),
            "patches": [patch.file for patch in plan.patches],
        }
        (scratch / PLAN).write_text(json.dumps(document, indent=2) + "\n")
        (scratch / CONFIG).write_text(prepared.text)
        write_code(scratch / CODE)
        if plan.sbom_tree is not None:
            _zip_folder(scratch / SBOM_SCRIPTS, plan.sbom_tree.path, SCRIPT.parent)
        for part in ("packages", "patches"):
            (scratch / part).mkdir()
        shutil.copyfile(packages / package.file, scratch / "packages" / package.file)
        for patch in plan.patches:
            shutil.copyfile(PATCHES / patch.file, scratch / "patches" / patch.file)


def write_code(archive: Path) -> None:
    """The Python files that the step needs, in an archive that PYTHONPATH takes."""
    top = Path(programs.__file__).parent
    names = [Path("__init__.py"), Path("errors.py"), Path("programs.py")]
    names += [path.relative_to(top) for path in (top / "kernel").rglob("*.py")]
    _zip_files(archive, top, names, prefix="kanctl/")


def _zip_folder(archive: Path, top: Path, folder: Path) -> None:
    names = [path.relative_to(top) for path in (top / folder).rglob("*") if path.is_file()]
    _zip_files(archive, top, [name for name in names if "__pycache__" not in name.parts], prefix="")


def _zip_files(archive: Path, top: Path, names: list[Path], *, prefix: str) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for name in sorted(names):
            entry = zipfile.ZipInfo(f"{prefix}{name.as_posix()}", ZIP_EPOCH)
            entry.external_attr = 0o644 << 16
            target.writestr(entry, (top / name).read_bytes(), compress_type=zipfile.ZIP_DEFLATED)
