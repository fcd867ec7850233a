"""The role kernel_build on a virtual node: what is built comes back, what fails is told, a controller may die.

The tree is tiny and the node's compiler and tools are names without content; the program, the unit, the waiting and
the way of the files are real. A whole kernel built this way is in docs/kernel.md.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import kanctl
from kanctl.kernel.build.plan_folder import CODE, write_code
from kanctl.kernel.build.step import compiler_version
from kanctl.lab import containers, host
from kanctl.lab.errors import LabError, LabToolsMissing
from kanctl.lab.model import LabSpec
from kanctl.lab.status import ssh_words

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
NAME = f"b{os.getpid() % 1_000_000}"
PLAYBOOKS = Path(kanctl.__file__).parent / "playbooks"
FOLDER = "/var/lib/kanctl/kernel-build/tiny-6.12.1"
TOOLS = "gcc flex bison bc rsync cpio depmod zstd openssl pahole dh_builddeb dpkg-architecture"
FAKE_TOOLS = f"""cd /usr/local/bin && mkdir -p /usr/include/openssl
touch /usr/include/libelf.h /usr/include/openssl/evp.h
for name in {TOOLS}; do printf '#!/bin/sh\\necho "{compiler_version()}"\\n' > $name; chmod +x $name; done"""


def on_node(command):
    return subprocess.run(ssh_words(NAME, "node1", [command]), capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def inventory():
    """A node with the names of all tools; skips with the reason where there can be none."""
    try:
        host.require_ability()
    except (LabError, LabToolsMissing) as error:
        pytest.skip(str(error))
    try:
        lab = containers.up(LabSpec(name=NAME, node_count=1), print)
        assert on_node(FAKE_TOOLS).returncode == 0
        yield lab.inventory
    finally:
        containers.down(NAME, print)


@pytest.fixture
def plan(plan_folder):
    """The tiny plan, as the controller hands it over."""
    (plan_folder / "module-signing.pem").rename(plan_folder.parent / "key.pem")
    write_code(plan_folder / CODE)
    return plan_folder


def add_file(plan, name, content):
    """Let a patch put a file into the tree; the plan differs by it."""
    (plan / "patches").mkdir(exist_ok=True)
    text = f"--- /dev/null\n+++ b/{name}\n@@ -0,0 +1 @@\n+{content}\n"
    (plan / f"patches/{name}.patch").write_text(text)
    document = json.loads((plan / "plan.json").read_text())
    (plan / "plan.json").write_text(json.dumps(document | {"patches": [f"{name}.patch"]}))


def words(plan, inventory, *more):
    variables = {
        "kernel_build_plan_dir": str(plan),
        "kernel_build_key_file": str(plan.parent / "key.pem"),
        "kernel_build_result_dir": str(plan.parent / "results"),
        "kernel_build_packages": ["make", "xz-utils", "patch"],
    }
    program = Path(sys.executable).parent / "ansible-playbook"
    return [str(program), "-i", str(inventory), "kernel-build.yml", "-e", json.dumps(variables), *more]


def build(plan, inventory, *more):
    (plan.parent / "results").mkdir(exist_ok=True)
    command = words(plan, inventory, *more)
    return subprocess.run(command, cwd=PLAYBOOKS, capture_output=True, text=True, timeout=200)


def results(plan):
    return sorted(path.name for path in (plan.parent / "results").iterdir())


def test_a_fresh_node_is_looked_at_without_a_change(plan, inventory):
    done = build(plan, inventory, "--check")
    assert done.returncode == 0, done.stdout
    assert on_node(f"test -e {FOLDER}").returncode == 1


def test_packages_come_back_and_the_key_goes(plan, inventory):
    done = build(plan, inventory)
    assert done.returncode == 0, done.stdout
    stem = "6.12.1-kanctl-lab-1a2b3c_6.12.1-1_amd64.deb"
    assert results(plan) == [f"linux-headers-{stem}", f"linux-image-{stem}", "result.json"]
    assert on_node(f"ls {FOLDER}/module-signing.pem {FOLDER}/obj/kanctl-module-key.pem").stdout == ""


def test_a_build_that_fails_is_told_with_its_last_words(plan, inventory):
    add_file(plan, "broken", "x")
    done = build(plan, inventory)
    assert done.returncode == 2
    assert "the build of 6.12.1-kanctl-lab-1a2b3c stopped" in done.stdout
    assert f"The whole log: {FOLDER}/obj/build.log" in done.stdout
    assert results(plan) == []
    assert on_node(f"ls {FOLDER}/module-signing.pem {FOLDER}/obj/kanctl-module-key.pem").stdout == ""


def test_another_compiler_is_refused_before_anything_is_copied(plan, inventory):
    document = json.loads((plan / "plan.json").read_text())
    (plan / "plan.json").write_text(json.dumps(document | {"compiler": "gcc 1.0"}))
    done = build(plan, inventory)
    assert done.returncode == 2
    assert "wanted the configuration's compiler, gcc 1.0" in done.stdout
    assert on_node(f"grep -c 'gcc 1.0' {FOLDER}/plan.json").stdout.strip() == "0"


def test_a_build_outlives_its_controller_and_the_same_command_takes_it_up(plan, inventory):
    add_file(plan, "seconds", "25")
    (plan.parent / "results").mkdir()
    first = subprocess.Popen(words(plan, inventory), cwd=PLAYBOOKS, stdout=subprocess.DEVNULL, start_new_session=True)
    active = "systemctl show --property=InvocationID --value kanctl-kernel-build.service"
    while not (invocation := on_node(active).stdout.strip()):
        assert first.poll() is None
        time.sleep(0.5)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()

    other = plan.parent / "other" / plan.name
    other.mkdir(parents=True)
    (other / "plan.json").write_text((plan / "plan.json").read_text() + " ")
    (plan.parent / "other/results").mkdir()
    refused = build(other, inventory)
    assert refused.returncode == 2
    assert "another kernel is being built there" in refused.stdout

    assert on_node(active).stdout.strip() == invocation
    done = build(plan, inventory)
    assert done.returncode == 0, done.stdout
    assert "Compilation runs on the node" not in done.stdout
    assert len(results(plan)) == 3
