"""A plan folder with a tiny tree in place of a kernel: what a build node gets, in a second instead of half an hour."""

import hashlib
import json
import subprocess

import pytest

from kanctl.kernel.build import remote
from kanctl.kernel.build.step import compiler_version

MAKEFILE = """VERSION = 6
PATCHLEVEL = 12
SUBLEVEL = 1
bzImage:
	@sleep $$(cat $(CURDIR)/seconds 2>/dev/null || echo 0)
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
def plan_folder(tmp_path):
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
    folder = tmp_path / "tiny-6.12.1"
    (folder / "packages").mkdir(parents=True)
    deb = folder / "packages/source.deb"
    subprocess.run(["dpkg-deb", "-b", str(root), str(deb)], check=True, capture_output=True)
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    source = {"file": deb.name, "package": "linux-source-6.12", "version": "6.12.1-1", "sha256": digest}
    plan = {
        "version": "6.12.1", "local_version": "-kanctl-lab-1a2b3c", "revision": 1, "epoch_s": 0, "signed": True,
        "jobs": 1, "expected": 1, "compiler": compiler_version(), "source": source, "patches": [],
    }  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "config").write_text("CONFIG_X=y\n")
    (folder / remote.KEY).write_text("secret")
    return folder
