"""`python -m kanctl.trainer.prepare`: a folder of text becomes a corpus, whole or not at all.

The corpus is built beside its place and renamed into it, so a kill, a full disk or Ctrl-C leaves no half of one.
"""

import argparse
import errno
import fcntl
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from kanctl.errors import KanctlError

from .data.corpus import Document, find_files, read_documents, standard_library
from .data.shards import Manifest, ShardWriter, read_manifest, write_manifest
from .errors import CorpusInvalid

PROGRESS_FILES = 500
# Tokens take two bytes each; the rest is for the file system.
SPACE_MARGIN_BYTES = 64 * 1024 * 1024


def prepare_corpus(source: Path, out: Path, *, replace: bool, progress: Callable[[str], None]) -> Manifest:
    """Make the corpus `out` of the text below `source`.

    A corpus of the same text that is already there is kept. Raises CorpusInvalid for a source without text and for
    another corpus in the way (unless `replace`), KanctlError for a full disk and for a second prepare at once.
    """
    if not source.is_dir():
        raise CorpusInvalid(f"wanted a folder with text, found none at {source}", "--source FOLDER")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.part")
    with _only_one(out):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            files = find_files(source)
            _require_space(out.parent, files)
            manifest = _write(source, files, partial, progress)
            _move_into_place(partial, out, manifest, replace=replace, progress=progress)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise KanctlError(f"the disk of {out.parent} is full; nothing was kept", "free space there") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _write(source: Path, files: list[Path], partial: Path, progress: Callable[[str], None]) -> Manifest:
    partial.mkdir()
    writers = {split: ShardWriter(partial, split) for split in ("train", "val")}
    counts = {"train": 0, "val": 0}
    for split, document in _split(read_documents(source, files)):
        writers[split].add(document.text)
        counts[split] += 1
        if sum(counts.values()) % PROGRESS_FILES == 0:
            progress(f"{sum(counts.values())} of at most {len(files)} files")
    for writer in writers.values():
        writer.close()
    if not counts["train"]:
        raise CorpusInvalid(
            f"{source}: none of {len(files)} files is text (UTF-8, not hidden, at most 1 MiB)", "--source FOLDER"
        )
    manifest = Manifest(
        source=str(source),
        train_documents=counts["train"],
        val_documents=counts["val"],
        skipped_files=len(files) - sum(counts.values()),
        shards=(*writers["train"].shards, *writers["val"].shards),
    )
    write_manifest(partial, manifest)
    return manifest


def _split(documents: Iterator[Document]) -> Iterator[tuple[str, Document]]:
    """Each document with its split. Small corpora, where chance may hold nothing back, give one up, or a part of it."""
    held_back = False
    lowest: Document | None = None
    for document in documents:
        if document.is_validation:
            held_back = True
            yield "val", document
        elif held_back or (lowest is not None and document.order >= lowest.order):
            yield "train", document
        else:
            if lowest is not None:
                yield "train", lowest
            lowest = document
    if lowest is None:
        return
    if held_back:
        yield "train", lowest
        return
    # Nothing fell below the share: the end of the lowest document is held back, so that training keeps its start.
    cut = len(lowest.text) * 9 // 10
    yield "train", Document(path=lowest.path, text=lowest.text[:cut])
    yield "val", Document(path=lowest.path, text=lowest.text[cut:])


def _move_into_place(
    partial: Path, out: Path, manifest: Manifest, *, replace: bool, progress: Callable[[str], None]
) -> None:
    if out.exists():
        if _holds_same_text(out, manifest):
            progress(f"{out} holds this very text already; kept")
            return
        if not replace:
            raise CorpusInvalid(f"{out} holds another corpus", "--replace, or another name")
        old = out.with_name(f".{out.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
        partial.rename(out)
        shutil.rmtree(old)
        return
    partial.rename(out)


def _holds_same_text(out: Path, manifest: Manifest) -> bool:
    try:
        return read_manifest(out).same_text(manifest)
    except CorpusInvalid:
        return False


def _require_space(folder: Path, files: list[Path]) -> None:
    needed = SPACE_MARGIN_BYTES + 2 * sum(path.stat().st_size for path in files if path.is_file())
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
        print(f"{options.out}: {counts} of {manifest.train_documents + manifest.val_documents} documents")
    return 0


if __name__ == "__main__":
    sys.exit(main())
