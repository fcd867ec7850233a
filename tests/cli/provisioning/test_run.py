"""Provisioning with the real Ansible: nodes that are this machine, playbooks that touch only the test's folder."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kanctl.cli.provisioning.run import ProvisionOptions, provision, raise_for_failures
from kanctl.errors import KanctlError, NodeUnreachableError

COMMAND = [sys.executable, str(Path(__file__).with_name("provision_like_kanctl.py"))]


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts provisioning in a process group of its own, as a shell does; none is left behind."""
    started: list[subprocess.Popen[str]] = []

    def run(*words: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def wait_for(path: Path) -> None:
    end_s = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end_s, f"{path} did not come"
        time.sleep(0.05)


def last_record(journal: Path) -> dict[str, object]:
    return json.loads(journal.read_text().splitlines()[-1])


def newest(home: Path) -> Path:
    return max((home / "journal").iterdir())


def test_a_second_run_changes_nothing(playbooks, make_inventory, folder, home, capsys):
    inventory = make_inventory("alpha", "beta")
    first = provision(playbooks / "greet.yml", inventory, ["alpha", "beta"], ProvisionOptions(diff=True))
    second = provision(playbooks / "greet.yml", inventory, ["alpha", "beta"], ProvisionOptions())

    assert (folder / "alpha").read_text() == "hello alpha\n"
    assert [node["changed"] for node in first.to_json()["nodes"]] == [1, 1]
    assert [node["changed"] for node in second.to_json()["nodes"]] == [0, 0]
    assert "+hello beta" in capsys.readouterr().err
    assert last_record(second.journal)["status"] == "done"
    assert list((home / "ansible").iterdir()) == []
    raise_for_failures(second)


def test_check_shows_and_changes_nothing(playbooks, make_inventory, folder):
    options = ProvisionOptions(check=True, limit=("beta",), tags=("greet",))
    report = provision(playbooks / "greet.yml", make_inventory("alpha", "beta"), ["beta"], options)

    assert [(node["node"], node["changed"]) for node in report.to_json()["nodes"]] == [("beta", 1)]
    assert list(folder.iterdir()) == []


def test_a_failed_check_is_told_as_it_is_with_the_way_to_repeat(playbooks, make_inventory):
    inventory = make_inventory("alpha", "beta", gone=("gamma",))
    report = provision(playbooks / "refuse.yml", inventory, ["alpha", "beta", "gamma"], ProvisionOptions())

    with pytest.raises(KanctlError) as caught:
        raise_for_failures(report, ["kanctl", "provision", "nodes", "--tags", "base"])
    assert caught.value.exit_code == 1
    assert "2 of 3 nodes failed" in str(caught.value)
    assert "beta: facts: 'Disk is large enough': Wanted: 40 GiB free. Found: 3. Next: free space." in str(caught.value)
    assert "gamma refuses connections" in str(caught.value)
    assert caught.value.next_step == "kanctl provision nodes --tags base --limit beta,gamma"
    assert [node["changed"] for node in report.to_json()["nodes"]] == [1, 1, 0]


def test_unreachable_nodes_alone_have_their_own_code(playbooks, make_inventory):
    report = provision(
        playbooks / "greet.yml", make_inventory("alpha", gone=("gamma",)), ["alpha", "gamma"], ProvisionOptions()
    )

    with pytest.raises(NodeUnreachableError, match="1 of 2 nodes failed") as caught:
        raise_for_failures(report)
    assert caught.value.exit_code == 4
    assert last_record(report.journal)["totals"]["gamma"]["unreachable"] == 1


def test_a_broken_playbook_is_named_with_its_line(make_inventory, tmp_path):
    playbook = tmp_path / "broken.yml"
    playbook.write_text("- hosts: nodes\n  roles: [nosuch]\n")
    report = provision(playbook, make_inventory("alpha"), ["alpha"], ProvisionOptions())

    with pytest.raises(KanctlError, match=r"the role 'nosuch' was not found .*broken.yml:2"):
        raise_for_failures(report)


def test_ctrl_c_lets_the_running_task_end_and_starts_no_other(playbooks, make_inventory, folder, home, start):
    process = start(playbooks / "wait.yml", make_inventory("alpha", "beta", wait_s=2), "alpha", "beta")
    wait_for(folder / "begun-beta")
    os.killpg(process.pid, signal.SIGINT)
    _, notes = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "stopping: no new task starts" in notes
    assert "interrupted while 'Node waits' on alpha, beta" in notes
    assert {path.name for path in folder.iterdir()} == {"begun-alpha", "begun-beta", "ended-alpha", "ended-beta"}
    end = last_record(newest(home))
    assert (end["status"], end["running"]) == ("interrupted", {"alpha": "Node waits", "beta": "Node waits"})
    assert list((home / "ansible").iterdir()) == []


def test_a_second_ctrl_c_waits_for_nothing(playbooks, make_inventory, folder, home, start):
    process = start(playbooks / "wait.yml", make_inventory("alpha", wait_s=60), "alpha")
    wait_for(folder / "begun-alpha")
    os.killpg(process.pid, signal.SIGINT)
    assert "stopping" in process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=20)

    assert process.returncode == 130
    assert last_record(newest(home))["status"] == "interrupted"


def test_after_a_kill_the_next_run_waits_for_what_was_left_and_converges(
    playbooks, make_inventory, folder, home, start
):
    words = (playbooks / "wait.yml", make_inventory("alpha", wait_s=2), "alpha")
    killed = start(*words)
    wait_for(folder / "begun-alpha")
    killed.kill()
    killed.wait()
    assert not (folder / "ended-alpha").exists()
    again = start(*words)
    notes = again.stderr.readline() + again.stderr.readline()
    wait_for(folder / "ended-alpha")
    (folder / "begun-alpha").unlink()
    answer, _ = again.communicate(timeout=30)

    assert "was cut off while 'Node waits' on alpha; running again" in notes
    assert "its last task still runs; waiting for it" in notes
    assert (folder / "begun-alpha").exists()
    assert again.returncode == 0
    assert json.loads(answer)["status"] == "done"
    assert list((home / "ansible").iterdir()) == []


def test_two_runs_at_once_are_refused(playbooks, make_inventory, folder, start):
    inventory = make_inventory("alpha", wait_s=1)
    first = start(playbooks / "wait.yml", inventory, "alpha")
    wait_for(folder / "begun-alpha")

    with pytest.raises(KanctlError, match=f"another provisioning of this inventory runs .*process {first.pid}"):
        provision(playbooks / "greet.yml", inventory, ["alpha"], ProvisionOptions())
    first.communicate(timeout=30)
    assert first.returncode == 0
