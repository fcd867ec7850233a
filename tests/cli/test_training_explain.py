"""`kanctl train explain` as its users meet it: the table, the JSON, and mistakes told before any node is asked."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kanctl.cli.training.explain import explain_rows, where


def explain(*words: str, home: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "kanctl.cli", "train", "explain", *words]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "KANCTL_HOME": str(home), "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_layers_that_agree_share_a_row() -> None:
    row = {"part": "token mixer", "layer": "A", "work": "all", "implementation": "torch", "reason": "why"}
    [shown] = explain_rows({"rows": [{"layers": [0, 1, 2, 4, 6, 7], **row}]})
    assert shown == ("0-2, 4, 6-7", "token mixer", "A", "all", "torch", "why")


def test_the_machine_is_told_in_a_line() -> None:
    gpu = {"recipe": "base", "device": "cuda", "capability": "9.0", "triton": "3.6", "dtype": "bfloat16"}
    assert where(gpu) == "base on a GPU of compute capability 9.0, Triton 3.6, bfloat16"
    assert where({**gpu, "triton": None}) == "base on a GPU of compute capability 9.0, no Triton, bfloat16"
    assert where({**gpu, "device": "cpu"}) == "base on a CPU, bfloat16"


def test_here_and_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    done = explain("kan", "--local", "--capability", "9.0", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "enter: EdgeLayer" in done.stdout
    assert "GPU of compute capability 9.0" in done.stderr
    found = json.loads(explain("kan", "--local", "--json", "--set", "engine.device=cpu", home=tmp_path).stdout)
    assert found["device"] == "cpu"
    assert {"layers", "part", "layer", "work", "implementation", "reason"} == set(found["rows"][0])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("nosuch",), "wanted a shipped recipe or the path of a TOML file, found 'nosuch'"),
        (("kan", "--capability", "nine"), "--capability: wanted a compute capability such as 9.0, found 'nine'"),
        (("kan", "--set", "model.heads=3"), "model.heads: wanted a divisor of width 64, found 3"),
    ],
)
def test_a_mistake_is_bad_usage_and_nothing_is_asked(words: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    done = explain(*words, "--local", home=tmp_path)
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stdout == ""
