"""The plan folder: the same inputs make the same files, and its code runs where nothing of kanctl is installed."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from kanctl.kernel.build.patches import load_patches
from kanctl.kernel.build.plan_folder import CODE, write_code, write_plan
from kanctl.kernel.build.settings import BuildSettings
from kanctl.kernel.errors import SourceUnavailable
from kanctl.kernel.source import SourcePackage, SourceTree

SETTINGS = BuildSettings(version="6.12.1", local_version="-kanctl-lab-1a2b3c", revision=1, epoch_s=7)


@pytest.fixture
def made(tmp_path):
    """What write_plan takes: a build of a tree with one Makefile, with signed modules and one patch."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/Makefile").write_text("obj-y += main.o\n")
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages/source.deb").write_bytes(b"source")
    package = SourcePackage(file="source.deb", package="linux-source-6.12", version="6.12.1-1", sha256="00")
    plan = SimpleNamespace(
        tree=SourceTree(path=tmp_path / "tree", version="6.12.1", package=package),
        patches=load_patches()[:1], sbom_tree=None,
    )  # fmt: skip
    requests = {"CONFIG_MODULE_SIG": SimpleNamespace(value="y")}
    prepared = SimpleNamespace(requests=requests, config={}, text="CONFIG_MODULE_SIG=y\n")
    return plan, prepared


def write(made, folder, tmp_path):
    write_plan(folder, *made, SETTINGS, packages=tmp_path / "packages", jobs=None)
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_plan_says_all_that_decides_the_build(made, tmp_path):
    files = write(made, tmp_path / "plan", tmp_path)
    plan = json.loads((tmp_path / "plan/plan.json").read_text())
    assert (plan["version"], plan["local_version"], plan["epoch_s"]) == ("6.12.1", "-kanctl-lab-1a2b3c", 7)
    assert plan["signed"] is True
    assert plan["jobs"] is None
    assert plan["source"]["sha256"] == "00"
    assert plan["patches"] == [made[0].patches[0].file]
    assert sorted(map(str, files)) == sorted(
        ["plan.json", "config", CODE, "packages/source.deb", f"patches/{plan['patches'][0]}"]
    )


def test_the_same_inputs_make_the_same_files(made, tmp_path):
    assert write(made, tmp_path / "plan", tmp_path) == write(made, tmp_path / "plan", tmp_path)


def test_a_tree_without_a_package_is_refused_and_no_plan_stays(made, tmp_path):
    plan, prepared = made
    plan.tree = SourceTree(path=tmp_path / "tree", version="6.12.1", package=None)
    with pytest.raises(SourceUnavailable, match="a tree of your own"):
        write((plan, prepared), tmp_path / "plan", tmp_path)
    assert not (tmp_path / "plan").exists()


def test_the_code_builds_with_nothing_of_kanctl_installed(plan_folder, tmp_path):
    write_code(plan_folder / CODE)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in (
        "flex",
        "bison",
        "bc",
        "rsync",
        "cpio",
        "depmod",
        "zstd",
        "openssl",
        "dh_builddeb",
        "pahole",
        "dpkg-architecture",
    ):
        (tools / name).write_text("#!/bin/sh\n")
        (tools / name).chmod(0o755)
    environment = {"PYTHONPATH": str(plan_folder / CODE), "PATH": f"{os.environ['PATH']}:{tools}"}
    # -S: no site-packages, so no kanctl but the archive's.
    command = [sys.executable, "-S", "-m", "kanctl.kernel.build.remote", str(plan_folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    if "libelf-dev" in done.stderr or "libssl-dev" in done.stderr:
        pytest.skip("the headers that a kernel needs are not here")
    assert done.returncode == 0, done.stderr
    assert json.loads((plan_folder / "result.json").read_text())["modules"] == ["nvme_core"]
