"""A lab that cannot exist is refused before anything is made."""

from pathlib import Path

import pytest

from kanctl.lab.errors import LabError, LabMissing, LabSpecInvalid
from kanctl.lab.model import LabSpec, LabStatus, NodeStatus, parse_hardware
from kanctl.lab.state import LabPaths, LabRecord, load_record, require_record, save_record

RECORD = LabRecord(name="demo", subnet="10.73.0.0/24", node_count=2, hardware={}, rootfs="/cache/rootfs-1")


@pytest.mark.parametrize("name", ["", "Lab", "a-b", "toolongname", "1st", "a/b", "../x", "a b"])
def test_bad_names_are_refused(name):
    with pytest.raises(LabSpecInvalid, match="at most 8 letters and digits"):
        LabSpec(name=name)


@pytest.mark.parametrize("count", [0, -1, 51])
def test_bad_counts_are_refused(count):
    with pytest.raises(LabSpecInvalid, match="wanted 1 to 50 nodes"):
        LabSpec(node_count=count)


@pytest.mark.parametrize("text", ["node2", "node2=", "=h200", "two=h200", "node0=h200", "node2=../h200", "node2=a b"])
def test_bad_hardware_is_refused(text):
    with pytest.raises(LabSpecInvalid, match="wanted hardware as NODE=NAME"):
        LabSpec(hardware=parse_hardware([text]))


def test_hardware_is_read_as_pairs():
    assert parse_hardware(["node2=h200-x8", "node3=rtx"]) == (("node2", "h200-x8"), ("node3", "rtx"))


def test_a_record_is_read_back_as_written(tmp_path):
    paths = LabPaths(name="demo", state_root=tmp_path)
    assert load_record(paths) is None
    save_record(paths, RECORD)
    assert load_record(paths) == RECORD
    assert [path.name for path in paths.folder.iterdir()] == ["lab.json"]


def test_a_missing_lab_says_how_to_make_it(tmp_path):
    with pytest.raises(LabMissing, match="wanted a lab named demo") as caught:
        require_record(LabPaths(name="demo", state_root=tmp_path))
    assert caught.value.next_step == "kanctl lab up --name demo"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "demo"}'])
def test_a_torn_record_says_how_to_clear_it(tmp_path, text):
    paths = LabPaths(name="demo", state_root=tmp_path)
    paths.folder.mkdir()
    paths.record.write_text(text)
    with pytest.raises(LabError) as caught:
        load_record(paths)
    assert "kanctl lab down --name demo" in caught.value.next_step


def test_status_document_names_every_node_and_says_whether_all_run():
    node = NodeStatus(
        name="node1",
        address="10.73.0.11",
        state="stopped",
        supervisor_pid=None,
        hardware="h200",
        console_log=Path("/log"),
    )
    status = LabStatus(name="demo", subnet="10.73.0.0/24", inventory=Path("/i"), shared_dir=Path("/s"), nodes=(node,))
    document = status.to_json()
    assert document["running"] is False
    assert document["nodes"] == [
        {
            "name": "node1",
            "address": "10.73.0.11",
            "state": "stopped",
            "supervisor_pid": None,
            "recorded_hardware": "h200",
            "console_log": "/log",
        }
    ]
