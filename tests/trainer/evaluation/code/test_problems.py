"""Files of problems: both forms read alike, and every mistake is told with its line."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from kanctl.errors import BadInputError
from kanctl.trainer.errors import RowsInvalid
from kanctl.trainer.evaluation.code.problems import read_problems

GOOD: dict[str, Any] = {
    "task_id": "t/0",
    "prompt": "def f():\n",
    "entry_point": "f",
    "canonical_solution": "    return 1\n",
    "test": "def check(candidate):\n    assert candidate() == 1\n",
}


def test_plain_and_compressed_files_read_alike(three_problems: Path, tmp_path: Path) -> None:
    packed = tmp_path / "three.jsonl.gz"
    packed.write_bytes(gzip.compress(three_problems.read_bytes()))
    plain = read_problems(three_problems)
    assert read_problems(packed) == plain
    assert [problem.entry_point for problem in plain] == ["double", "longest", "nothing"]


def test_a_program_is_prompt_body_tests_and_their_call(three_problems: Path) -> None:
    problem = read_problems(three_problems)[0]
    text = problem.program("    return 7\n").decode()
    assert text.startswith(problem.prompt + "    return 7\n")
    assert text.endswith("\ncheck(double)\n")
    assert problem.test in text


def test_every_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    lines = [
        json.dumps(GOOD),
        "{not json",
        "[1, 2]",
        json.dumps({**GOOD, "task_id": "t/1", "test": "assert True", "entry_point": "a b"}),
        "",
        json.dumps({**GOOD, "task_id": 3}),
        json.dumps(GOOD),
        json.dumps({"task_id": "t/2", "prompt": ""}),
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(RowsInvalid) as caught:
        read_problems(path)
    found = [(problem.line, problem.key) for problem in caught.value.problems]
    assert found == [
        *((2, ""), (3, ""), (4, "entry_point"), (4, "test"), (6, "task_id"), (7, "task_id")),
        *((8, "entry_point"), (8, "canonical_solution"), (8, "test")),
    ]
    assert "9 mistakes" in str(caught.value)
    assert "line 7, task_id: wanted one of its own, found 't/0' of line 1" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "wanted at least one problem, found none"),
        (b'{"task_id": "\xff"}', "line 1: wanted UTF-8, found the byte 0xff"),
        (gzip.compress(b"x" * 999)[:-9], "could not read"),
        (b"\x1f\x8b nothing", "could not read"),
        (None, "No such file"),
    ],
    ids=["empty", "latin", "cut", "no gzip", "missing"],
)
def test_a_file_that_is_none_is_bad_input(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "problems.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInputError, match=words) as caught:
        read_problems(path)
    assert str(path) in str(caught.value)


def test_a_thousand_mistakes_are_counted_and_twenty_shown(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    path.write_text("[]\n" * 1000)
    with pytest.raises(RowsInvalid, match="1000 mistakes") as caught:
        read_problems(path)
    assert len(caught.value.problems) == 1000
    assert str(caught.value).count("line ") == 20
    assert "and 980 more" in str(caught.value)
