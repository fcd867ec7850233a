"""`kanctl inventory`: what `new` writes is valid, and `check` and `show` answer in one form."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from kanctl.inventory import Gpu
from kanctl.inventory.load import load_cluster

ROOT = Path(__file__).parents[2]
ROLES = ROOT / "playbooks" / "roles"
EXAMPLE = ROOT / "inventory" / "examples" / "h200-pair" / "hosts.yml"
TWO_NODES = ["--node", "node1=10.0.0.11", "--node", "node2=10.0.0.12"]
PAIR = """\
all:
  children:
    nodes:
      hosts:
        n1: {ansible_host: 10.0.0.1}
        n2: {ansible_host: 10.0.0.1}
"""


def kanctl(folder: Path, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KANCTL_")}
    command = [sys.executable, "-m", "kanctl.cli", "inventory", *words]
    return subprocess.run(command, input=stdin or "", capture_output=True, text=True, cwd=folder, env=environment)


def answer_on_a_terminal(folder: Path, words: list[str], answers: str) -> tuple[int, str]:
    """Runs the command with a terminal as its stdin, types the answers, and gives the exit code and stderr."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answers.encode())
        command = [sys.executable, "-m", "kanctl.cli", "inventory", *words]
        done = subprocess.run(command, stdin=theirs, capture_output=True, text=True, cwd=folder, timeout=30)
    finally:
        os.close(ours)
        os.close(theirs)
    return done.returncode, done.stderr


def test_what_new_writes_from_few_flags_passes_check(tmp_path):
    assert kanctl(tmp_path, "new", *TWO_NODES).returncode == 0
    done = kanctl(tmp_path, "check")
    assert (done.returncode, done.stdout) == (0, "hosts.yml: 2 nodes, no mistake\n")
    cluster = load_cluster(tmp_path / "hosts.yml", ROLES)
    assert [(node.name, node.address, node.user) for node in cluster.nodes] == [
        ("node1", "10.0.0.11", "root"),
        ("node2", "10.0.0.12", "root"),
    ]


def test_what_new_writes_says_what_every_flag_said(tmp_path):
    key = tmp_path / "a key #1: mine"
    key.touch()
    flags = [
        "--cluster",
        "on",
        "--user",
        "ops",
        "--key",
        key.name,
        "--shared-dir",
        "/srv/k",
        "--gpus",
        "NVIDIA H200:8:141",
    ]
    done = kanctl(tmp_path, "new", "--node", "a=fd00::1", "--node", "yes=10.0.0.2", "--output", "new/site.yml", *flags)
    assert (done.returncode, done.stdout) == (0, "new/site.yml\n")
    cluster = load_cluster(tmp_path / "new" / "site.yml", ROLES)
    assert (cluster.name, cluster.shared_dir) == ("on", "/srv/k")
    assert [(node.name, node.address) for node in cluster.nodes] == [("a", "fd00::1"), ("yes", "10.0.0.2")]
    for node in cluster.nodes:
        assert (node.user, node.private_key_file) == ("ops", key)
        assert node.gpus == (Gpu(model="NVIDIA H200", count=8, memory_gib=141),)
        assert node.variables["ansible_become"] is True


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--node", "node1"], "wanted --node NAME=ADDRESS, found node1"),
        ([], "wanted at least one --node"),
        (["--node", "a=10.0.0.1", "--node", "b=10.0.0.1"], "b has the address 10.0.0.1 port 22 of a"),
        (["--node", "a=10.0.0.1", "--node", "a=10.0.0.2"], "a stands here and in line"),
        (["--node", "a;b=10.0.0.1"], "node name 'a;b'"),
        ([*TWO_NODES, "--user", "x y: z"], "ansible_user: wanted a login"),
        ([*TWO_NODES, "--shared-dir", "srv"], "kanctl_shared_dir: wanted an absolute path"),
        ([*TWO_NODES, "--shared-dir", "/srv/a #b"], "kanctl_shared_dir: wanted an absolute path"),
        ([*TWO_NODES, "--key", "/nowhere/key"], "ansible_ssh_private_key_file: wanted the path of a file"),
        ([*TWO_NODES, "--gpus", "H200:8:141GB"], "numbers without a unit, found 'H200:8:141GB'"),
        ([*TWO_NODES, "--gpus", "H200:0"], "wanted count as a whole number 1 to 64"),
        ([*TWO_NODES, "--cluster", "a}\nb: {"], "kanctl_cluster_name: wanted letters"),
    ],
)
def test_wrong_flags_end_with_2_and_leave_no_file(flags, words, tmp_path):
    done = kanctl(tmp_path, "new", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert ".part" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_written_over_only_with_force(tmp_path):
    (tmp_path / "hosts.yml").write_text("mine")
    done = kanctl(tmp_path, "new", *TWO_NODES)
    assert (done.returncode, (tmp_path / "hosts.yml").read_text()) == (1, "mine")
    assert "--force" in done.stderr
    assert kanctl(tmp_path, "new", *TWO_NODES, "--force").returncode == 0
    assert kanctl(tmp_path, "check").returncode == 0


@pytest.mark.parametrize("output", [".", "file/hosts.yml", "file/deeper/hosts.yml", "x" * 300])
def test_a_folder_or_a_place_that_cannot_be_written_is_one_message(output, tmp_path):
    (tmp_path / "file").touch()
    done = kanctl(tmp_path, "new", *TWO_NODES, "--force", "--output", output)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_folders_made_for_an_inventory_that_is_wrong_go_with_it(tmp_path):
    (tmp_path / "there").mkdir()
    done = kanctl(tmp_path, "new", "--node", "a=10.0.0.300", "--output", "there/new/deep/hosts.yml")
    assert done.returncode == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_a_link_that_leads_nowhere_is_not_written_over(tmp_path):
    (tmp_path / "hosts.yml").symlink_to("nowhere")
    assert kanctl(tmp_path, "new", *TWO_NODES).returncode == 1
    assert (tmp_path / "hosts.yml").is_symlink()


def test_questions_are_asked_again_until_the_answer_is_one(tmp_path):
    nodes = ["10.0.0.1; reboot", "10.0.0.1", "", "10.0.0.2", "node1", "big_one", "big-one", ""]
    others = ["twins", "", "", "srv", "/srv/kanctl", "H200:8:x", "H200:8"]
    code, said = answer_on_a_terminal(tmp_path, ["new"], "\n".join([*nodes, *others, ""]))
    assert code == 0, said
    assert "node1 is the name of another node" in said
    cluster = load_cluster(tmp_path / "hosts.yml", ROLES)
    assert [(node.name, node.address) for node in cluster.nodes] == [("node1", "10.0.0.1"), ("big-one", "10.0.0.2")]
    assert (cluster.name, cluster.shared_dir, cluster.nodes[0].gpu_count) == ("twins", "/srv/kanctl", 8)


@pytest.mark.parametrize(("answers", "code"), [("\n", 2), ("\x04", 2), ("10.0.0.1\n\x03", 130)])
def test_giving_up_at_a_question_leaves_no_file(answers, code, tmp_path):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "kanctl.cli", "inventory", "new"]
    # A session of its own whose terminal this is, so that ^C means an interrupt.
    start = (
        "import fcntl, os, sys, termios\n"
        "os.setsid()\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\nos.execv(sys.argv[1], sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", start, *command], stdin=theirs, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stderr is not None
    assert "address of node 1" in process.stderr.readline()
    os.write(ours, answers.encode())
    said = process.communicate(timeout=30)[1]
    os.close(ours)
    os.close(theirs)
    assert process.returncode == code, said
    assert list(tmp_path.iterdir()) == []


def test_check_names_every_mistake_and_ends_with_2(tmp_path):
    (tmp_path / "hosts.yml").write_text(PAIR)
    done = kanctl(tmp_path, "check")
    assert (done.returncode, done.stdout) == (2, "")
    assert "hosts.yml:6: n2 has the address 10.0.0.1 port 22 of n1" in done.stderr
    done = kanctl(tmp_path, "check", "--json")
    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert document["valid"] is False
    assert [(m["file"], m["line"]) for m in document["mistakes"]] == [("hosts.yml", 6)]


def test_check_of_a_valid_one_says_so_in_json():
    done = kanctl(ROOT, "check", "--inventory", str(EXAMPLE), "--json")
    assert json.loads(done.stdout) == {"valid": True, "path": str(EXAMPLE), "mistakes": []}


def test_no_inventory_ends_with_2_and_says_what_makes_one(tmp_path):
    for path in ("none.yml", ".", "x" * 300):
        done = kanctl(tmp_path, "check", "--inventory", path)
        assert done.returncode == 2
        assert "kanctl inventory new" in done.stderr


def test_show_has_units_in_its_keys_and_no_secrets():
    document = json.loads(kanctl(ROOT, "show", "--inventory", str(EXAMPLE), "--json").stdout)
    assert (document["name"], document["shared_dir"]) == ("h200-pair", "/srv/kanctl")
    assert document["nodes"][0] == {
        "name": "h200-a", "address": "10.0.1.11", "port": 22, "user": "ops",
        "private_key_file": None, "known_hosts_file": None,
        "gpus": [{"model": "NVIDIA H200", "count": 8, "memory_gib": 141}],
        "nics": [{"name": "ib0", "speed_gbps": 400, "kind": "infiniband"}],
    }  # fmt: skip


def test_show_is_a_table():
    text = kanctl(ROOT, "show", "--inventory", str(EXAMPLE)).stdout
    for words in ("h200-b", "ops@10.0.1.12:22", "8 x NVIDIA H200", "shared folder: /srv/kanctl"):
        assert words in text
