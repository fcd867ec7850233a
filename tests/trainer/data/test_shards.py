"""Shards and their manifest: sizes, checksums, and what is said of damaged ones."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kanctl.trainer.data import shards
from kanctl.trainer.data.shards import END_OF_DOCUMENT, TOKEN, Manifest, ShardWriter, read_manifest, verify_shards
from kanctl.trainer.errors import CorpusInvalid


@pytest.fixture
def corpus(corpus_dir: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(corpus_dir, tmp_path / "corpus"))


def test_documents_are_bytes_with_a_mark_after_each(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "train")
    writer.add("é".encode())
    writer.add(b"")
    writer.add(b"ab")
    writer.close()
    tokens = np.fromfile(tmp_path / "train-00000.bin", TOKEN)
    assert tokens.tolist() == [0xC3, 0xA9, END_OF_DOCUMENT, END_OF_DOCUMENT, 97, 98, END_OF_DOCUMENT]
    assert [shard.tokens for shard in writer.shards] == [7]


def test_a_long_text_goes_on_in_the_next_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_TOKENS", 4)
    writer = ShardWriter(tmp_path, "val")
    writer.add(b"abcdefghi")
    writer.add(b"j")
    writer.close()
    assert [(shard.name, shard.tokens) for shard in writer.shards] == [
        ("val-00000.bin", 4),
        ("val-00001.bin", 4),
        ("val-00002.bin", 4),
    ]
    whole = b"".join((tmp_path / shard.name).read_bytes() for shard in writer.shards)
    assert np.frombuffer(whole, TOKEN).tolist() == [*b"abcdefghi", 256, *b"j", 256]
    manifest = Manifest(source="", train_documents=0, val_documents=2, skipped_files=0, shards=tuple(writer.shards))
    verify_shards(tmp_path, manifest, checksums=True)
    assert manifest.tokens("val") == 12
    assert manifest.tokens("train") == 0


def test_a_manifest_comes_back_as_it_was_written(corpus: Path) -> None:
    manifest = read_manifest(corpus)
    assert manifest.same_text(read_manifest(corpus))
    assert manifest.train_documents + manifest.val_documents == 120
    assert {shard.split for shard in manifest.shards} == {"train", "val"}


def test_a_short_shard_is_found_without_reading_it(corpus: Path) -> None:
    path = corpus / "train-00000.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(CorpusInvalid, match=r"train-00000\.bin: wanted .* bytes, found"):
        verify_shards(corpus, read_manifest(corpus), checksums=False)


def test_a_missing_shard_is_named(corpus: Path) -> None:
    (corpus / "val-00000.bin").unlink()
    with pytest.raises(CorpusInvalid, match=r"val-00000\.bin: wanted .* found None"):
        verify_shards(corpus, read_manifest(corpus), checksums=False)


def test_an_altered_byte_is_found_by_checksum(corpus: Path) -> None:
    path = corpus / "train-00000.bin"
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(content)
    verify_shards(corpus, read_manifest(corpus), checksums=False)
    with pytest.raises(CorpusInvalid, match="SHA-256"):
        verify_shards(corpus, read_manifest(corpus), checksums=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: '"corpus"',
        lambda text: text.replace('"split"', '"part"'),
        lambda text: json.dumps({**json.loads(text), "format": 99}),
    ],
)
def test_a_damaged_manifest_is_a_corpus_error(corpus: Path, damage: Callable[[str], str]) -> None:
    path = corpus / "manifest.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(CorpusInvalid, match=r"manifest\.json") as caught:
        read_manifest(corpus)
    assert "--replace" in caught.value.next_step


def test_a_folder_without_manifest_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(CorpusInvalid, match="no corpus in"):
        read_manifest(tmp_path / "nowhere")
