"""`python -m kanctl.trainer.prepare`: a folder of text becomes a corpus, whole or not at all.

The corpus is built beside its place and renamed into it, so a kill, a full disk or Ctrl-C leaves no half of one.
"""

import argparse
import errno
import fcntl
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from kanctl.errors import KanctlError

from .data.corpus import Document, candidate_bytes, find_files, read_documents, standard_library
from .data.shards import TOKEN, Manifest, ShardWriter, read_manifest, verify_shards, write_manifest
from .errors import CorpusInvalid

PROGRESS_FILES = 500
# Beside the tokens, for the file system.
SPACE_MARGIN_BYTES = 64 * 1024 * 1024
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# What a corpus folder may hold, and nothing else may: a folder of anything else is never replaced.
CORPUS_FILE = re.compile(r"manifest\.json|(train|val)-\d+\.bin")


def prepare_corpus(source: Path, out: Path, *, replace: bool, progress: Callable[[str], None]) -> Manifest:
    """Make the corpus `out` of the text below `source`.

    A corpus of the same text that is already there is kept. Raises CorpusInvalid for a source without text and for
    another corpus in the way (unless `replace`), KanctlError for a full disk and for a second prepare at once. A
    damaged corpus of the same text is made again.
    """
    if not source.is_dir():
        raise CorpusInvalid(f"wanted a folder with text, found none at {source}", "--source FOLDER")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(out):
            return _prepare_alone(source, out, replace=replace, progress=progress)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise KanctlError(f"the disk of {out.parent} is full; nothing was kept", "free space there") from error
        raise KanctlError(f"{out} was not made: {error}", "see to that path, then prepare again") from error


def _prepare_alone(source: Path, out: Path, *, replace: bool, progress: Callable[[str], None]) -> Manifest:
    partial, old = out.with_name(f".{out.name}.part"), out.with_name(f".{out.name}.old")
    # What a killed prepare left: a half corpus, or a whole one on its way out whose successor never came.
    _tidy(partial, old, out)
    try:
        files = find_files(source, without=out)
        _require_space(out.parent, files)
        manifest = _write(source, files, partial, progress)
        if out.exists():
            if _holds_same_text(out, manifest):
                progress(f"{readable(out)} holds this very text already; kept")
                return manifest
            _require_replaceable(out, manifest, replace=replace)
            out.rename(old)
        partial.rename(out)
        return manifest
    finally:
        _tidy(partial, old, out)


def _tidy(partial: Path, old: Path, out: Path) -> None:
    shutil.rmtree(partial, ignore_errors=True)
    if old.is_dir() and not out.exists():
        old.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _write(source: Path, files: list[Path], partial: Path, progress: Callable[[str], None]) -> Manifest:
    partial.mkdir()
    writers = {split: ShardWriter(partial, split) for split in ("train", "val")}
    try:
        files_read, counts = _write_documents(source, files, writers, progress)
    finally:
        for writer in writers.values():
            writer.abandon()
    if not counts["train"]:
        raise CorpusInvalid(
            f"{source}: none of {len(files)} files is text (UTF-8, not hidden, not empty, at most 1 MiB)",
            "--source FOLDER",
        )
    manifest = Manifest(
        source=readable(source),
        train_documents=counts["train"],
        val_documents=counts["val"],
        skipped_files=len(files) - files_read,
        shards=(*writers["train"].shards, *writers["val"].shards),
    )
    write_manifest(partial, manifest)
    return manifest


def _write_documents(
    source: Path, files: list[Path], writers: Mapping[str, ShardWriter], progress: Callable[[str], None]
) -> tuple[int, dict[str, int]]:
    """Write all text; gives the files that were text, and the documents of each split."""
    counts = {"train": 0, "val": 0}
    files_read, path = 0, ""
    for split, document in _split(read_documents(source, files)):
        writers[split].add(document.text)
        counts[split] += 1
        # The two parts of a document that was cut follow each other.
        if document.path != path:
            files_read, path = files_read + 1, document.path
            if files_read % PROGRESS_FILES == 0:
                progress(f"{files_read} of at most {len(files)} files")
    for writer in writers.values():
        writer.close()
    return files_read, counts


def _split(documents: Iterator[Document]) -> Iterator[tuple[str, Document]]:
    """Each document with its split. Where chance leaves a split empty, the last document is cut in two."""
    given = set()
    lowest: Document | None = None
    for document in documents:
        if lowest is None:
            lowest = document
            continue
        lowest, other = sorted((lowest, document), key=lambda one: one.order)
        split = "val" if other.is_validation else "train"
        given.add(split)
        yield split, other
    if lowest is None:
        return
    # The lowest is held back if any document is.
    if lowest.is_validation and "train" in given:
        yield "val", lowest
        return
    cut = len(lowest.text) * 9 // 10
    yield "train", Document(path=lowest.path, text=lowest.text[:cut])
    yield "val", Document(path=lowest.path, text=lowest.text[cut:])


def _require_replaceable(out: Path, manifest: Manifest, *, replace: bool) -> None:
    """Raise CorpusInvalid unless what stands at `out` may make room for this corpus."""
    if not out.is_dir() or any(not CORPUS_FILE.fullmatch(path.name) for path in out.iterdir()):
        raise CorpusInvalid(f"{out} holds something that is no corpus; it is left alone", "another name")
    if not replace and not _says_same_text(out, manifest):
        raise CorpusInvalid(f"{out} holds another corpus", "--replace, or another name")


def _says_same_text(out: Path, manifest: Manifest) -> bool:
    try:
        return read_manifest(out).same_text(manifest)
    except CorpusInvalid:
        return False


def _holds_same_text(out: Path, manifest: Manifest) -> bool:
    """Whether the corpus there has this text, and undamaged: a damaged one is made again."""
    try:
        verify_shards(out, manifest, checksums=True)
    except CorpusInvalid:
        return False
    return _says_same_text(out, manifest)


def readable(path: Path) -> str:
    """A path that can be printed and written as JSON: bytes that are no UTF-8 show as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _require_space(folder: Path, files: list[Path]) -> None:
    needed = SPACE_MARGIN_BYTES + TOKEN.itemsize * sum(map(candidate_bytes, files))
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise KanctlError(f"{folder}: wanted {needed >> 20} MiB free, found {free >> 20} MiB", "free space there")


@contextmanager
def _only_one(out: Path) -> Iterator[None]:
    with out.with_name(f".{out.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise KanctlError(f"another prepare is writing {out}", "wait for it to end") from error
        yield


def main(words: Sequence[str] | None = None) -> int:
    """Read the arguments, make the corpus, return the exit code (kanctl/errors.py)."""
    parser = argparse.ArgumentParser(prog="python -m kanctl.trainer.prepare", allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus to make")
    parser.add_argument("--source", type=Path, help="folder of text; default: this Python's standard library")
    parser.add_argument("--replace", action="store_true", help="replace a corpus of other text")
    parser.add_argument("--json", action="store_true", help="print the manifest")
    options = parser.parse_args(words)
    source = options.source.expanduser() if options.source else standard_library()
    try:
        manifest = prepare_corpus(
            source, options.out, replace=options.replace, progress=lambda line: print(line, file=sys.stderr)
        )
    except KanctlError as error:
        print(f"{error}\n  next: {error.next_step}" if error.next_step else str(error), file=sys.stderr)
        return error.exit_code
    if options.json:
        print(json.dumps(asdict(manifest), indent=2))
    else:
        counts = f"{manifest.tokens('train'):,} training and {manifest.tokens('val'):,} validation tokens"
        print(f"{readable(options.out)}: {counts} of {manifest.train_documents + manifest.val_documents} documents")
    return 0


if __name__ == "__main__":
    sys.exit(main())
