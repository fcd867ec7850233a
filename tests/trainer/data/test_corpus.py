"""Which files count as text, and how they are split."""

import os
from pathlib import Path

from kanctl.trainer.data.corpus import (
    FILE_BYTES_MAX,
    Document,
    find_files,
    is_text,
    read_documents,
    standard_library,
)


def texts(source: Path) -> dict[str, bytes]:
    return {document.path: document.text for document in read_documents(source, find_files(source))}


def test_any_folder_gives_its_text_files_of_whatever_name(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "notes").write_text("grüße")
    (tmp_path / "a.md").write_text("text")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "b.txt").write_text("kept: only the standard library's own tests are left out")
    assert sorted(texts(tmp_path)) == ["a.md", "deep/er/notes", "test/b.txt"]


def test_binary_hidden_large_and_empty_files_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(b"a\0b")
    (tmp_path / "latin1").write_bytes("grüße".encode("latin-1"))
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(b"x" * (FILE_BYTES_MAX + 1))
    (tmp_path / "just").write_bytes(b"x" * FILE_BYTES_MAX)
    (tmp_path / ".hidden").write_text("secret")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("secret")
    assert list(texts(tmp_path)) == ["just"]


def test_links_that_loop_or_dangle_and_pipes_do_not_disturb(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    assert list(texts(tmp_path)) == ["a.txt"]


def test_a_file_that_vanishes_after_the_walk_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    files = [*find_files(tmp_path), tmp_path / "gone.txt"]
    assert [document.path for document in read_documents(tmp_path, files)] == ["a.txt"]


def test_names_that_are_no_utf8_are_read_like_others(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("text")
    [document] = read_documents(tmp_path, find_files(tmp_path))
    assert document.text == b"text"
    assert 0 <= document.order < 1


def test_of_the_standard_library_only_python_files_outside_tests_are_taken() -> None:
    library = standard_library()
    names = [path.relative_to(library) for path in find_files(library)]
    assert Path("json/decoder.py") in names
    assert {name.suffix for name in names} == {".py"}
    assert not [name for name in names if {"test", "tests", "site-packages", "__pycache__"} & set(name.parts)]


def test_the_split_depends_on_path_and_content_alone() -> None:
    one, same = Document(path="a", text=b"x"), Document(path="a", text=b"x")
    assert one.order == same.order
    assert one.order != Document(path="a", text=b"y").order
    assert one.order != Document(path="b", text=b"x").order
    many = [Document(path=f"{n}", text=b"x").is_validation for n in range(2000)]
    assert 0.03 < sum(many) / len(many) < 0.07


def test_text_is_utf8_without_nul() -> None:
    assert is_text("é".encode())
    assert not is_text(b"\xff\xfe")
    assert not is_text(b"a\0")
