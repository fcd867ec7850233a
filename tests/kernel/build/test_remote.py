"""The step that may run on a build node: from a plan folder to packages, with a tiny tree in place of a kernel."""

import hashlib
import json
import subprocess

import pytest

from kanctl.kernel.build import remote
from kanctl.kernel.build.settings import MODULE_KEY
from kanctl.kernel.errors import BuildFailed, SourceUnavailable

MAKEFILE = """VERSION = 6
PATCHLEVEL = 12
SUBLEVEL = 1
bzImage:
\t@test -f $(O)/.config && test -f $(O)/kanctl-module-key.pem
\t@echo '  CC      init/main.o'; touch $(O)/main.o
\t@test ! -f $(srctree)/broken
modules:
\t@echo drivers/nvme-core.o > $(O)/modules.order
run-command:
\t@mkdir -p $(O)/debian && cp $(CURDIR)/rules $(O)/debian/rules
\t@echo ' -- kanctl <k@l>  today' > $(O)/debian/changelog
"""
RULES = "binary-%:\n\ttouch ../linux-$*-6.12.1-kanctl-lab-1a2b3c_6.12.1-1_amd64.deb\n"


@pytest.fixture
def plan_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("kanctl.kernel.build.compile.require_build_tools", lambda: None)
    tree = tmp_path / "pack" / "linux-source-6.12"
    tree.mkdir(parents=True)
    (tree / "Makefile").write_text(MAKEFILE.replace("$(srctree)", "$(CURDIR)"))
    (tree / "rules").write_text(RULES)
    root = tmp_path / "root"
    (root / "usr/src").mkdir(parents=True)
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN/control").write_text(
        "Package: linux-source-6.12\nVersion: 6.12.1-1\nArchitecture: all\nMaintainer: k <k@l>\nDescription: tiny\n"
    )
    tarball = str(root / "usr/src/linux.tar.xz")
    subprocess.run(["tar", "-C", str(tree.parent), "-cJf", tarball, tree.name], check=True)
    folder = tmp_path / "plan"
    (folder / "packages").mkdir(parents=True)
    deb = folder / "packages/source.deb"
    subprocess.run(["dpkg-deb", "-b", str(root), str(deb)], check=True, capture_output=True)
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    source = {"file": deb.name, "package": "linux-source-6.12", "version": "6.12.1-1", "sha256": digest}
    plan = {
        "version": "6.12.1", "local_version": "-kanctl-lab-1a2b3c", "revision": 1, "epoch_s": 0, "signed": True,
        "jobs": 1, "expected": 1, "compiler": remote.compiler_version(), "source": source, "patches": [],
    }  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "config").write_text("CONFIG_X=y\n")
    (folder / remote.KEY).write_text("secret")
    return folder


def keys(folder):
    return [path for path in (folder / remote.KEY, folder / "obj" / MODULE_KEY) if path.exists()]


def test_a_plan_folder_becomes_packages_and_a_result(plan_folder):
    remote.run_plan(plan_folder, lambda _text: None)
    result = json.loads((plan_folder / "result.json").read_text())
    assert sorted(result["packages"]) == ["headers", "image"]
    assert result["modules"] == ["nvme_core"]
    assert result["figures"]["objects"] == 1
    assert keys(plan_folder) == []


def test_a_failure_keeps_objects_and_removes_the_key(plan_folder):
    (plan_folder / "patches").mkdir()
    (plan_folder / "patches/break.patch").write_text("--- /dev/null\n+++ b/broken\n@@ -0,0 +1 @@\n+x\n")
    plan = json.loads((plan_folder / "plan.json").read_text())
    (plan_folder / "plan.json").write_text(json.dumps(plan | {"patches": ["break.patch"]}))
    with pytest.raises(BuildFailed):
        remote.run_plan(plan_folder, lambda _text: None)
    assert (plan_folder / "obj/main.o").is_file()
    assert keys(plan_folder) == []
    assert not (plan_folder / "result.json").exists()


def test_a_damaged_source_is_refused(plan_folder):
    with (plan_folder / "packages/source.deb").open("ab") as file:
        file.write(b"x")
    with pytest.raises(SourceUnavailable, match="checksum"):
        remote.run_plan(plan_folder, lambda _text: None)
    assert keys(plan_folder) == []


def test_another_compiler_is_refused(plan_folder):
    plan = json.loads((plan_folder / "plan.json").read_text())
    (plan_folder / "plan.json").write_text(json.dumps(plan | {"compiler": "gcc 1.0"}))
    with pytest.raises(BuildFailed, match=r"gcc 1\.0"):
        remote.run_plan(plan_folder, lambda _text: None)
