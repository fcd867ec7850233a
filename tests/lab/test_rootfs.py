"""The root file system is named by what it is made from, and a build that is cut short leaves nothing."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kanctl.lab import mounts, processes
from kanctl.lab.apt_sources import Release, Source
from kanctl.lab.errors import LabError
from kanctl.lab.rootfs import RootfsInputs, mmdebstrap_words, remove_leftovers, require_space

INPUTS = RootfsInputs(
    release=Release(distribution="debian", codename="bookworm"),
    architecture="x86_64",
    sources=(Source(uri="http://m.example/debian", suite="bookworm", components=("main",)),),
    apt_options=('Acquire::Check-Valid-Until "false";',),
    certificates_sha256="0" * 64,
)


def test_the_hash_stays_while_the_inputs_do():
    assert INPUTS.content_hash() == dataclasses.replace(INPUTS).content_hash()
    assert len(INPUTS.content_hash()) == 12


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "aarch64"},
        {"release": Release(distribution="debian", codename="trixie")},
        {"sources": ()},
        {"apt_options": ()},
        {"certificates_sha256": "1" * 64},
        {"packages": ("systemd",)},
        {"dpkg_options": ()},
        {"recipe_version": 0},
    ],
)
def test_the_hash_changes_with_every_input(change):
    assert dataclasses.replace(INPUTS, **change).content_hash() != INPUTS.content_hash()


def test_the_build_names_its_packages_options_and_release():
    words = mmdebstrap_words(INPUTS, Path("/cache/building-1"))
    assert words[0] == "mmdebstrap"
    assert words[-3:] == ["bookworm", "/cache/building-1", "-"]
    assert '--aptopt=Acquire::Check-Valid-Until "false";' in words
    assert any(word.startswith("--include=") and "python3-apt" in word for word in words)


def test_too_small_a_disk_is_named_with_both_figures(tmp_path):
    with pytest.raises(LabError, match=r"wanted 999999999 MiB free in .* to build, found \d+ MiB"):
        require_space(tmp_path, 999_999_999, "to build")


@pytest.mark.lab
def test_a_killed_build_is_cleared_with_its_processes_and_mounts(lab_host, tmp_path):
    code = (
        "import sys; from pathlib import Path; from kanctl.lab.rootfs import ensure_rootfs\n"
        "ensure_rootfs(Path(sys.argv[1]), lambda line: print(line, flush=True))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "running apt-get update" not in process.stdout.readline():
        assert process.poll() is None, "the build ended by itself"
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    process.wait()
    building = tmp_path / f"building-{process.pid}"
    assert building.exists()
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == []
    assert mounts.list_below(tmp_path) == []
    assert not [pid for pid, words in processes.command_lines() if str(building) in words]
