"""The role kernel_install on a node of the virtual cluster, where the boot loader is dry: tried, kept, run twice."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

from kanctl.lab.containers import down, up
from kanctl.lab.model import LabSpec

pytestmark = [pytest.mark.lab, pytest.mark.slow]
RELEASE = "6.12.117-kanctl-lab-0test0"


def kanctl(inventory, *words):
    command = [sys.executable, "-m", "kanctl.cli", "kernel", *words, "--inventory", str(inventory)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def inventory(lab_host, tmp_path_factory):
    """One node of a lab of its own."""
    name = f"k{os.getpid() % 1_000_000}"
    try:
        yield up(LabSpec(name=name, node_count=1), print).inventory
    finally:
        down(name, print)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle with a real, small package that installs a file and nothing that boots."""
    folder = tmp_path_factory.mktemp("bundle")
    root = folder / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "boot").mkdir()
    (root / "boot" / f"config-{RELEASE}").write_text("CONFIG_A=y\n")
    (root / "DEBIAN/control").write_text(
        f"Package: linux-image-{RELEASE.lower()}\nVersion: 6.12.117-1\nArchitecture: amd64\n"
        "Maintainer: kanctl <kanctl@localhost>\nDescription: a kernel for tests\n"
    )
    package = folder / f"linux-image-{RELEASE}_6.12.117-1_amd64.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", str(root), str(package)], check=True, capture_output=True)
    manifest = {
        "format": "kanctl-kernel-1",
        "release": RELEASE,
        "config_sha256": hashlib.sha256(b"CONFIG_A=y\n").hexdigest(),
        "packages": [
            {
                "file": package.name,
                "kind": "image",
                "bytes": package.stat().st_size,
                "sha256": hashlib.sha256(package.read_bytes()).hexdigest(),
            }
        ],
        "cmdline": [],
        "modprobe": ["options nvme_core multipath=N"],
        "modules": [],
        "preempt": "full",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def state_of(inventory):
    done = kanctl(inventory, "promote", "--check", "--json")
    return done.returncode, json.loads(done.stdout)[0]


def test_a_check_changes_nothing(inventory, bundle):
    done = kanctl(inventory, "install", str(bundle), "--check")
    assert done.returncode == 0, done.stderr
    assert f"would try {RELEASE}" in done.stderr
    assert state_of(inventory)[1]["loader"] == ""


def test_a_kernel_is_tried_judged_and_kept(inventory, bundle):
    done = kanctl(inventory, "install", str(bundle), "--yes")
    assert done.returncode == 0, done.stderr
    assert f"{RELEASE} is the default from now on" in done.stderr
    code, state = state_of(inventory)
    assert code == 0
    assert (state["loader"], state["last_good"], state["trial"]) == ("dry", RELEASE, None)
    assert state["last_verdict"]["good"]


def test_a_second_run_changes_nothing(inventory, bundle):
    done = kanctl(inventory, "install", str(bundle), "--yes")
    assert done.returncode == 0, done.stderr
    assert "nothing to try" in done.stderr


def test_a_damaged_bundle_is_refused_before_any_node_is_asked(inventory, bundle, tmp_path):
    for path in bundle.glob("*.*"):
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    next(tmp_path.glob("*.deb")).write_bytes(b"damaged")
    done = kanctl(inventory, "install", str(tmp_path), "--yes")
    assert done.returncode == 2
    assert "missing or not what" in done.stderr


def test_without_yes_and_a_terminal_nothing_happens(inventory, bundle):
    done = kanctl(inventory, "install", str(bundle))
    assert done.returncode == 2
    assert "not confirmed" in done.stderr
