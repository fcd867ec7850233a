"""Preparing a corpus: whole or not at all, whatever is killed, full or in the way."""

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from kanctl.errors import KanctlError
from kanctl.trainer import prepare
from kanctl.trainer.data.loader import Corpus
from kanctl.trainer.data.shards import Manifest, ShardWriter, read_manifest
from kanctl.trainer.errors import CorpusInvalid
from kanctl.trainer.prepare import main, prepare_corpus

Usage = namedtuple("Usage", "total used free")


def make(source: Path, out: Path, *, replace: bool = False) -> Manifest:
    return prepare_corpus(source, out, replace=replace, progress=lambda line: None)


def visible(folder: Path) -> list[str]:
    """What a user sees there, and any half corpus."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_folder_becomes_a_corpus_that_opens_and_counts_every_file(text_dir: Path, tmp_path: Path) -> None:
    manifest = make(text_dir, tmp_path / "corpora" / "x")
    Corpus(tmp_path / "corpora" / "x", checksums=True)
    assert manifest.train_documents + manifest.val_documents == 120
    assert manifest.skipped_files == 0
    total = sum(path.stat().st_size + 1 for path in text_dir.iterdir())
    assert manifest.tokens("train") + manifest.tokens("val") == total
    assert visible(tmp_path / "corpora") == ["x"]


def test_without_a_source_it_is_the_standard_library(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path / "x")]) == 0
    manifest = read_manifest(tmp_path / "x")
    assert manifest.train_documents > 300
    assert 0.02 < manifest.tokens("val") / manifest.tokens("train") < 0.1


@pytest.mark.parametrize("files", [1, 2, 3, 7])
def test_small_corpora_have_both_splits_and_lose_no_byte(tmp_path: Path, files: int) -> None:
    for attempt in range(12):
        source = tmp_path / f"source-{attempt}"
        source.mkdir()
        for number in range(files):
            (source / f"{number}.txt").write_text(f"{attempt}-{number} " * 40)
        manifest = make(source, tmp_path / f"out-{attempt}")
        assert manifest.tokens("val") > 1
        assert manifest.tokens("train") > manifest.tokens("val") or files > 1
        assert manifest.skipped_files == 0
        text_bytes = sum(path.stat().st_size for path in source.iterdir())
        marks = manifest.train_documents + manifest.val_documents
        assert manifest.tokens("train") + manifest.tokens("val") == text_bytes + marks


def test_a_single_document_that_chance_holds_back_is_cut_too(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for number in range(400):
        prepare_text = f"{number} some text to read"
        document = prepare.Document(path="a.txt", text=prepare_text.encode())
        if document.is_validation:
            break
    (tmp_path / "source" / "a.txt").write_text(prepare_text)
    manifest = make(tmp_path / "source", tmp_path / "out")
    assert manifest.tokens("train") > manifest.tokens("val") > 1


def test_adding_a_file_moves_no_other_to_the_other_split(text_dir: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(text_dir, tmp_path / "source"))
    before = make(source, tmp_path / "before")
    (source / "zz.txt").write_text("one more")
    after = make(source, tmp_path / "after")
    added = (after.train_documents - before.train_documents, after.val_documents - before.val_documents)
    assert sorted(added) == [0, 1]


@pytest.mark.parametrize("content", [{}, {"a.bin": b"\0\1"}, {".hidden": b"text"}])
def test_a_folder_without_text_is_refused_and_leaves_nothing(tmp_path: Path, content: dict[str, bytes]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name, bytes_ in content.items():
        (source / name).write_bytes(bytes_)
    with pytest.raises(CorpusInvalid, match="files is text"):
        make(source, tmp_path / "out" / "x")
    assert visible(tmp_path / "out") == []


def test_a_missing_source_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "x"), "--source", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_the_same_text_again_is_kept_another_needs_replace(text_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "x"
    first = make(text_dir, out)
    written = (out / "manifest.json").stat().st_mtime_ns
    make(text_dir, out)
    assert (out / "manifest.json").stat().st_mtime_ns == written
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.txt").write_text("other text " * 50)
    with pytest.raises(CorpusInvalid, match="another corpus"):
        make(other, out)
    assert read_manifest(out) == first
    make(other, out, replace=True)
    assert not read_manifest(out).same_text(first)
    Corpus(out, checksums=True)
    assert visible(tmp_path) == ["other", "x"]


def test_a_damaged_corpus_of_the_same_text_is_mended(text_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "x"
    make(text_dir, out)
    (out / "train-00000.bin").write_bytes(b"short")
    make(text_dir, out)
    Corpus(out, checksums=True)


def test_a_folder_that_is_no_corpus_is_never_replaced(text_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "letters"
    out.mkdir()
    (out / "dear.txt").write_text("mine")
    with pytest.raises(CorpusInvalid, match="no corpus; it is left alone"):
        make(text_dir, out, replace=True)
    assert (out / "dear.txt").read_text() == "mine"


def test_a_corpus_inside_its_source_does_not_read_itself(text_dir: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(text_dir, tmp_path / "source"))
    first = make(source, source / "made")
    assert make(source, source / "made").same_text(first)


def test_too_little_space_is_told_before_anything_is_written(
    text_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(2**30, 2**30, 2**20))
    with pytest.raises(KanctlError, match="MiB free, found 1 MiB"):
        make(text_dir, tmp_path / "out" / "x")
    assert visible(tmp_path / "out") == []


def test_a_disk_that_fills_up_leaves_nothing(tiny_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.txt").write_text("text " * 100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(2**40, 0, 2**40))
    with pytest.raises(KanctlError, match="is full; nothing was kept"):
        make(source, tiny_disk / "x")
    assert visible(tiny_disk) == []


def test_a_write_that_fails_leaves_the_old_corpus(
    text_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x"
    first = make(text_dir, out)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.txt").write_text("other " * 50)

    def full(self: ShardWriter, text: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ShardWriter, "add", full)
    with pytest.raises(KanctlError, match="full"):
        make(tmp_path / "source", out, replace=True)
    assert read_manifest(out) == first
    assert visible(tmp_path) == ["source", "x"]


# Stops in the middle of writing, so that the test can kill it there.
SLOW = """
import sys, time
from kanctl.trainer import prepare
add = prepare.ShardWriter.add
def slow(self, text):
    add(self, text)
    print("writing", flush=True)
    time.sleep(60)
prepare.ShardWriter.add = slow
prepare.main(sys.argv[1:])
"""


def test_kill_9_leaves_no_half_corpus_and_the_next_prepare_works(text_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "x"
    words = [sys.executable, "-c", SLOW, "--out", str(out), "--source", str(text_dir)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        with pytest.raises(KanctlError, match="another prepare is writing"):
            make(text_dir, out)
        process.send_signal(signal.SIGKILL)
    assert not out.exists()
    make(text_dir, out)
    Corpus(out, checksums=True)
    assert visible(tmp_path) == ["x"]


def test_a_corpus_that_was_being_replaced_when_the_machine_died_comes_back(text_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "x"
    make(text_dir, out)
    out.rename(tmp_path / ".x.old")
    with pytest.raises(CorpusInvalid):
        make(tmp_path / "x", out)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CorpusInvalid):
        make(empty, out)
    Corpus(out, checksums=True)


def test_the_lock_goes_with_its_process(text_dir: Path, tmp_path: Path) -> None:
    with (tmp_path / ".x.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["--out", str(tmp_path / "x"), "--source", str(text_dir)]) == 1
    assert main(["--out", str(tmp_path / "x"), "--source", str(text_dir)]) == 0


def test_names_that_are_no_utf8_are_printed_and_written(
    text_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xffodd"))
    shutil.copytree(text_dir, odd)
    assert main(["--out", str(odd / "out"), "--source", str(odd), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["source"].endswith("\\xffodd")
    shown["source"].encode()
    assert main(["--out", str(odd / "out"), "--source", str(odd)]) == 0
    capsys.readouterr().out.encode()


def test_a_place_that_cannot_be_written_is_an_error_not_a_traceback(
    text_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["--out", str(tmp_path / "file" / "x"), "--source", str(text_dir)]) == 1
    assert "was not made" in capsys.readouterr().err
