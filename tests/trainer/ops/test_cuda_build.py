"""Libraries of CUDA kernels are built once for each text, whoever dies meanwhile; a stand-in builds."""

import multiprocessing
import os
from pathlib import Path

import pytest

from kanctl.trainer.ops.cuda_build import Build, build_library


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "kernel.cu"
    path.write_text("one")
    return path


def builder(log: Path) -> Build:
    def build(name: str, into: Path) -> Path:
        with log.open("a") as lines:
            lines.write(f"{name}\n")
        made = into / f"{name}.so"
        made.write_text("library")
        return made

    return build


def run(source: Path, tmp_path: Path, build: Build | None = None, flags: tuple[str, ...] = ("-O3",)) -> Path:
    build = build or builder(tmp_path / "log")
    return build_library("ours", [source], [], flags, folder=tmp_path / "kept", build=build)


def test_a_library_is_built_once_and_anew_when_text_or_flags_change(source: Path, tmp_path: Path) -> None:
    first = run(source, tmp_path)
    assert run(source, tmp_path) == first
    assert first.read_text() == "library"
    source.write_text("two")
    assert run(source, tmp_path) != first
    assert run(source, tmp_path, flags=("-O2",)) != first
    assert len((tmp_path / "log").read_text().splitlines()) == 3
    assert not [path for path in (tmp_path / "kept").iterdir() if path.is_dir()]


def test_a_build_that_fails_or_dies_leaves_the_next_its_turn(source: Path, tmp_path: Path) -> None:
    def fail(name: str, into: Path) -> Path:
        raise RuntimeError("no compiler")

    def die(name: str, into: Path) -> Path:
        os._exit(9)

    with pytest.raises(RuntimeError, match="no compiler"):
        run(source, tmp_path, fail)
    process = multiprocessing.get_context("fork").Process(target=run, args=(source, tmp_path, die))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert run(source, tmp_path).read_text() == "library"


def test_processes_that_want_it_together_build_it_once(source: Path, tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=run, args=(source, tmp_path)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert len((tmp_path / "log").read_text().splitlines()) == 1
