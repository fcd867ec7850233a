"""Which files of a folder are text worth training on, and which of them are for validation."""

import errno
import hashlib
import os
import stat
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# One larger file would be data or generated code, and would dominate a small corpus.
FILE_BYTES_MAX = 1024 * 1024
# About one document in twenty is held back.
VALIDATION_SHARE = 0.05
# Not the library itself: packages of others, and tests that hold much odd text on purpose.
STDLIB_SKIPPED = frozenset({"site-packages", "dist-packages", "test", "tests", "__pycache__", "lib2to3", "config"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text file: its path below the source folder, and its bytes, which are UTF-8."""

    path: str
    text: bytes

    @property
    def order(self) -> float:
        """A number from 0 to 1 made of path and content: the same everywhere, whatever else the corpus holds."""
        digest = hashlib.sha256(self.path.encode("utf-8", "surrogateescape") + b"\0" + self.text).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    @property
    def is_validation(self) -> bool:
        """Whether the document is held back."""
        return self.order < VALIDATION_SHARE


def standard_library() -> Path:
    """The folder of the running Python's standard library. Shown by `python3 -c 'import os; print(os.__file__)'`."""
    return Path(sysconfig.get_paths()["stdlib"])


def find_files(source: Path, *, without: Path | None = None) -> list[Path]:
    """Candidate files below a folder in a stable order; hidden names are left out, links to folders not followed.

    `without` is a folder to leave out: the corpus itself, where it lies below its source.
    """
    is_library = source.resolve() == standard_library().resolve()
    omitted = without.resolve() if without is not None else None
    found = []
    for folder, names, files in os.walk(source):
        names[:] = sorted(n for n in names if not n.startswith(".") and not (is_library and _is_skipped(n)))
        if omitted is not None and omitted.name in names and Path(folder, omitted.name).resolve() == omitted:
            names.remove(omitted.name)
        found += [
            Path(folder, f) for f in sorted(files) if not f.startswith(".") and (not is_library or f[-3:] == ".py")
        ]
    return found


def candidate_bytes(path: Path) -> int:
    """Bytes of a file that may be text by its size and kind; 0 for any other, and for one that may not be looked at."""
    try:
        status = path.stat()
    except (FileNotFoundError, PermissionError):
        return 0
    except OSError as error:
        # A link to itself.
        if error.errno != errno.ELOOP:
            raise
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) and status.st_size <= FILE_BYTES_MAX else 0


def read_documents(source: Path, files: list[Path]) -> Iterator[Document]:
    """The files that are text: regular, at most FILE_BYTES_MAX bytes, valid UTF-8 without NUL, not empty."""
    for path in files:
        if not candidate_bytes(path):
            continue
        try:
            text = path.read_bytes()
        except (FileNotFoundError, PermissionError):
            # Gone since the walk, or not ours to read: counted as skipped, like any file that is no text.
            continue
        if text and is_text(text):
            yield Document(path=str(path.relative_to(source)), text=text)


def is_text(content: bytes) -> bool:
    """Whether bytes are UTF-8 text."""
    if b"\0" in content:
        return False
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _is_skipped(name: str) -> bool:
    return name in STDLIB_SKIPPED or name.startswith("config-")
