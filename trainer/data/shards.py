"""Token shards on disk: uint16 files with a manifest of counts and checksums, whole or not there at all."""

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kanctl import __version__

from ..errors import CorpusInvalid

FORMAT = 1
END_OF_DOCUMENT = 256
TOKEN = np.dtype("<u2")
# 128 MiB a file: small enough to copy and verify one by one, large enough that a corpus has few.
SHARD_TOKENS = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file of tokens."""

    name: str
    split: str
    tokens: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a corpus holds; manifest.json is this."""

    source: str
    """The folder, for people to read: bytes of its name that are no UTF-8 are written as escapes."""
    train_documents: int
    val_documents: int
    skipped_files: int
    shards: tuple[Shard, ...]
    kanctl_version: str = __version__
    format: int = FORMAT

    def tokens(self, split: str) -> int:
        """Tokens of a split, bytes and end-of-document marks."""
        return sum(shard.tokens for shard in self.shards if shard.split == split)

    def same_text(self, other: "Manifest") -> bool:
        """Whether two corpora hold the same tokens."""
        return self.shards == other.shards


class ShardWriter:
    """Writes one split's documents into numbered shards."""

    def __init__(self, folder: Path, split: str) -> None:
        self._folder, self._split = folder, split
        self.shards: list[Shard] = []
        self._file: BinaryIO | None = None
        self._tokens = 0
        self._digest = hashlib.sha256()

    def add(self, text: bytes) -> None:
        """One document: its bytes, then the end-of-document mark."""
        tokens = np.empty(len(text) + 1, TOKEN)
        tokens[:-1] = np.frombuffer(text, np.uint8)
        tokens[-1] = END_OF_DOCUMENT
        while len(tokens):
            room = SHARD_TOKENS - self._tokens
            self._write(tokens[:room])
            tokens = tokens[room:]
            if self._tokens == SHARD_TOKENS:
                self.close()

    def _write(self, tokens: "np.ndarray[Any, np.dtype[np.uint16]]") -> None:
        if self._file is None:
            self._file = (self._folder / self._name()).open("wb")
        content = tokens.tobytes()
        self._file.write(content)
        self._digest.update(content)
        self._tokens += len(tokens)

    def close(self) -> None:
        """End the open shard, if there is one, and note it."""
        if self._file is None:
            return
        self._file.close()
        shard = Shard(name=self._name(), split=self._split, tokens=self._tokens, sha256=self._digest.hexdigest())
        self.shards.append(shard)
        self._file, self._tokens, self._digest = None, 0, hashlib.sha256()

    def abandon(self) -> None:
        """Close the open shard without noting it, after a write that failed; nothing to do after close()."""
        if self._file is not None:
            # What the buffer still holds fails again on a full disk.
            with contextlib.suppress(OSError):
                self._file.close()

    def _name(self) -> str:
        return f"{self._split}-{len(self.shards):05d}.bin"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """manifest.json, the last file of a corpus to be written."""
    (folder / "manifest.json").write_text(json.dumps(asdict(manifest), indent=2) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """A corpus's manifest. Raises CorpusInvalid when there is none or it cannot be read."""
    path = folder / "manifest.json"
    try:
        document = json.loads(path.read_text())
        shards = tuple(Shard(**shard) for shard in document.pop("shards"))
        manifest = Manifest(shards=shards, **document)
    except FileNotFoundError as error:
        raise CorpusInvalid(f"no corpus in {folder}: {path.name} is missing", "kanctl train prepare") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorpusInvalid(f"{path} is damaged: {error}", "kanctl train prepare --replace") from error
    if manifest.format != FORMAT:
        raise CorpusInvalid(f"{path} has format {manifest.format}, wanted {FORMAT}", "kanctl train prepare --replace")
    return manifest


def verify_shards(folder: Path, manifest: Manifest, *, checksums: bool) -> None:
    """Raise CorpusInvalid unless every shard has its size and, with `checksums`, its SHA-256."""
    for shard in manifest.shards:
        path = folder / shard.name
        wanted = shard.tokens * TOKEN.itemsize
        found = path.stat().st_size if path.is_file() else None
        if found != wanted:
            raise CorpusInvalid(f"{path}: wanted {wanted} bytes, found {found}", "kanctl train prepare --replace")
        if checksums and _sha256(path) != shard.sha256:
            raise CorpusInvalid(f"{path}: its SHA-256 is not the manifest's", "kanctl train prepare --replace")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
