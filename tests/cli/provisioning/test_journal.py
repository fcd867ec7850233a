"""The journal: what a killed run leaves, and what the next one makes of it."""

import json
import os
from pathlib import Path

import pytest

from kanctl.cli.provisioning.journal import KEEP, Journal, describe_running, last_run
from kanctl.cli.provisioning.state import TaskResult
from kanctl.errors import KanctlError

INVENTORY = Path("/etc/hosts.yml")
DONE = TaskResult(node="a", step="base", task="Clock is right", outcome="ok", changed=True, seconds=1.5, message="")


def kinds(path: Path) -> list[str]:
    return [json.loads(line)["kind"] for line in path.read_text().splitlines()]


def cut_off(check: bool = False) -> Path:
    """A journal as kill -9 leaves it: two nodes in the middle of a task, the last line torn."""
    with Journal(INVENTORY, ("a", "b"), {"check": check}) as journal:
        journal.begin("a", "base", "Clock is right")
        journal.task(DONE)
        journal.begin("a", "base", "Limits are set")
        journal.begin("b", "base", "Limits are set")
    lines = journal.path.read_text().splitlines()[:-1]
    journal.path.write_text("\n".join(lines) + '\n{"kind": "ta')
    return journal.path


def test_every_record_is_there_at_once():
    with Journal(INVENTORY, ("a",), {}) as journal:
        assert kinds(journal.path) == ["start"]
        journal.begin("a", "base", "Clock is right")
        journal.task(DONE)
        assert kinds(journal.path) == ["start", "begin", "task"]
        journal.end("done", {}, {})
    assert kinds(journal.path) == ["start", "begin", "task", "end"]


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "interrupted"), (KanctlError, "failed")])
def test_an_error_on_the_way_still_ends_the_journal(error, status):
    journal = Journal(INVENTORY, ("a",), {})
    with pytest.raises(error), journal:
        raise error("on the way")

    assert json.loads(journal.path.read_text().splitlines()[-1])["status"] == status


def test_a_run_that_ended_is_not_spoken_of(home):
    assert last_run(INVENTORY) is None
    with Journal(INVENTORY, ("a",), {}) as journal:
        journal.end("failed", {}, {})
    assert last_run(INVENTORY) is None


def test_a_cut_off_run_tells_where_it_was():
    path = cut_off()
    last = last_run(INVENTORY)

    assert last.path == path
    assert not last.is_alive
    assert last.describe().endswith("was cut off while 'Limits are set' on a, b")
    assert last_run(Path("/etc/other.yml")) is None


def test_a_cut_off_check_changed_nothing_and_is_passed_over():
    cut_off(check=True)
    assert last_run(INVENTORY) is None


def test_a_run_at_work_is_known_to_be_alive():
    with Journal(INVENTORY, ("a",), {}):
        assert last_run(INVENTORY).is_alive
        assert last_run(INVENTORY).pid == os.getpid()


def test_old_journals_are_dropped(home):
    folder = home / "journal"
    folder.mkdir(parents=True)
    for number in range(KEEP + 3):
        Path(folder, f"20200101-0000{number:02}-1-provision.jsonl").write_text("")
    with Journal(INVENTORY, ("a",), {}) as journal:
        assert journal.path.exists()
    assert len(list(folder.iterdir())) == KEEP


def test_without_a_place_for_it_no_node_is_touched(home):
    home.write_text("a file where a folder is wanted")
    with pytest.raises(KanctlError, match="no node was touched") as caught:
        Journal(INVENTORY, ("a",), {})
    assert "KANCTL_HOME" in caught.value.next_step


def test_a_full_disk_is_told_and_stops_nothing():
    journal = Journal(INVENTORY, ("a",), {})
    journal._file.close()
    with open("/dev/full", "wb", buffering=0) as full:
        journal._file = full
        journal.task(DONE)
    assert journal.problem == "No space left on device"


def test_what_runs_is_grouped_by_task():
    assert describe_running({"a": "x", "b": "y", "c": "x"}) == "'x' on a, c, 'y' on b"
