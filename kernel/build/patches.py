"""The table of patches, and source trees with the fitting ones applied. Reading the table is pure but for the file."""

import hashlib
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from kanctl.programs import ProgramFailed, run

from ..errors import FragmentInvalid, SourceUnavailable
from ..source import COMPLETE, TREE_BYTES, SourceTree, made_whole, require_space
from ..version import satisfies

FOLDER = Path(__file__).parents[1] / "patches"
KEYS = {"file", "subject", "versions", "reason", "upstream", "ends"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """One row of the table."""

    file: str
    subject: str
    versions: str
    reason: str
    upstream: str
    ends: date

    def fits(self, subject: str, version: tuple[int, ...]) -> bool:
        """Whether it belongs to this source at this kernel version."""
        return self.subject == subject and satisfies(version, self.versions)


def load_patches(folder: Path = FOLDER) -> tuple[Patch, ...]:
    """The table. Raises FragmentInvalid with every mistake at once."""
    rows = tomllib.loads((folder / "patches.toml").read_text()).get("patch", [])
    mistakes = []
    for number, row in enumerate(rows, start=1):
        name = row.get("file", f"row {number}")
        if set(row) != KEYS:
            mistakes.append(f"{name}: wanted the keys {', '.join(sorted(KEYS))}, found {', '.join(sorted(row))}")
        elif not isinstance(row["ends"], date):
            mistakes.append(f"{name}: ends is no date: {row['ends']!r}")
        elif not (folder / row["file"]).is_file():
            mistakes.append(f"{name}: there is no such file in {folder}")
    if mistakes:
        raise FragmentInvalid(f"{len(mistakes)} mistakes in {folder}/patches.toml:\n  " + "\n  ".join(mistakes))
    return tuple(Patch(**row) for row in rows)


def overdue(patches: Sequence[Patch], today: date) -> list[str]:
    """What to say of patches whose end date has passed."""
    return [f"{patch.file} was to end by {patch.ends}: {patch.upstream}" for patch in patches if patch.ends < today]


def patched_tree(
    tree: SourceTree, patches: Sequence[Patch], *, cache: Path, report: Callable[[str], None], folder: Path = FOLDER
) -> SourceTree:
    """A copy of a tree with patches applied, named by their content; the tree itself without any.

    Raises SourceUnavailable with the first hunk that does not apply; no half-patched tree stays.
    """
    if not patches:
        return tree
    target = cache / "source" / f"{tree.path.name}+{patches_digest(patches, folder)[:10]}"
    if not (target / COMPLETE).is_file():
        require_space(target.parent, TREE_BYTES)
        report(f"copying the tree for {len(patches)} patches")
        with made_whole(target) as scratch:
            run(["cp", "-a", "--reflink=auto", f"{tree.path}/.", str(scratch)])
            for patch in patches:
                apply_patch(scratch, folder / patch.file)
    return replace(tree, path=target)


def apply_patch(tree: Path, patch: Path) -> None:
    """Apply one patch exactly, without fuzz, which lets a hunk land in the wrong place. Raises SourceUnavailable."""
    try:
        run(["patch", "-d", str(tree), "-p1", "--fuzz=0", "--forward", "--batch", "-i", str(patch)])
    except ProgramFailed as error:
        raise SourceUnavailable(
            f"{patch.name} does not apply to {tree.name}:\n  {error}",
            "narrow its `versions` in kernel/patches/patches.toml, or renew it for this version",
        ) from error


def patches_digest(patches: Sequence[Patch], folder: Path = FOLDER) -> str:
    """SHA-256 over the patches' contents, in order."""
    digest = hashlib.sha256()
    for patch in patches:
        digest.update((folder / patch.file).read_bytes())
    return digest.hexdigest()
