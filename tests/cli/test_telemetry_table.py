"""What the telemetry view says about a node, whatever state it is in."""

import json
from dataclasses import replace

import pytest

from kanctl.cli.telemetry_table import COLUMNS, GPU_COLUMNS, NodeView, document, gpu_rows, node_row, size, span
from kanctl.monitoring.fake_nvml import FakeGpu, FakeNvml
from kanctl.monitoring.nvml import NvmlReader
from kanctl.monitoring.sample import DiskSample, NicSample, NodeSample, from_dict

GIB = 2**30
SAMPLE = NodeSample(
    time_unix_s=1.0,
    interval_s=1.0,
    hostname="a",
    uptime_s=60.0,
    cpu_count=8,
    cpu_used_percent=42.4,
    load_1min=3.25,
    memory_total_bytes=64 * GIB,
    memory_available_bytes=48 * GIB,
    swap_used_bytes=0,
    disk_read_bytes_per_s=0.0,
    disk_written_bytes_per_s=3 * 2**20,
    disks=(
        DiskSample(path="/", used_bytes=1, free_bytes=100 * GIB, total_bytes=200 * GIB),
        DiskSample(path="/srv/kanctl", used_bytes=1, free_bytes=2048 * GIB, total_bytes=4096 * GIB),
    ),
    nics=(NicSample(name="eth0", received_bytes_per_s=2048.0, sent_bytes_per_s=100.0),),
    gpus=(),
)


def row(view: NodeView) -> dict[str, str]:
    return dict(zip(COLUMNS, node_row(view), strict=True))


def test_a_healthy_node_shows_all_its_numbers():
    assert row(NodeView(node="a", sample=SAMPLE, age_s=0.4)) == {
        "node": "a",
        "state": "ok",
        "CPU": "42% of 8",
        "load": "3.2",
        "memory": "16.0/64 GiB",
        "disk /": "100 GiB free",
        "shared": "2.0 TiB free",
        "disk r/w": "0 B/3.0 MiB /s",
        "net in/out": "2.0 KiB/100 B /s",
        "GPUs": "none",
        "age": "0 s",
        "note": "",
    }


def test_a_dead_node_is_a_row_with_the_reason_and_no_old_numbers():
    found = row(NodeView(node="a", sample=SAMPLE, age_s=75.0, problem="no route to host"))

    assert (found["state"], found["age"], found["note"]) == ("no answer", "seen 75 s ago", "no route to host")
    assert found["CPU"] == found["GPUs"] == "-"


def test_a_node_never_seen_says_so():
    assert row(NodeView(node="a", problem="refused"))["age"] == "never seen"
    assert row(NodeView(node="a"))["state"] == "connecting"


def test_an_old_sample_is_marked_stale_by_its_own_interval():
    assert NodeView(node="a", sample=SAMPLE, age_s=6.0, interval_s=1.0).state == "stale"
    assert NodeView(node="a", sample=SAMPLE, age_s=6.0, interval_s=10.0).state == "ok"


def test_gpus_that_cannot_be_read_are_not_called_none():
    found = row(NodeView(node="a", sample=replace(SAMPLE, gpus_problem="no driver"), age_s=0.0))

    assert (found["GPUs"], found["note"]) == ("not readable", "no driver")


def test_gpus_have_rows_of_their_own_and_a_summary():
    gpus = NvmlReader(
        FakeNvml(gpus=[FakeGpu(throttle_bits=0x40), FakeGpu(power_mw=None, temperature_c=None)])
    ).read_gpus()
    view = NodeView(node="a", sample=replace(SAMPLE, gpus=gpus), age_s=0.0)
    first, second = (dict(zip(GPU_COLUMNS, cells, strict=True)) for cells in gpu_rows([view, NodeView(node="b")]))

    assert row(view)["GPUs"] == "2 x H200 97% 688 W"
    assert (first["memory"], first["power"], first["throttled by"]) == ("120.0/141 GiB", "688/700 W", "hw_thermal")
    assert (second["power"], second["temp"]) == ("-", "-")


def test_the_document_brings_samples_back():
    views = [NodeView(node="a", sample=SAMPLE, age_s=0.0), NodeView(node="b", problem="gone")]
    found = json.loads(json.dumps(document("c", 1.0, views)))

    assert from_dict(found["nodes"][0]["sample"]) == SAMPLE
    assert found["nodes"][1] == {"node": "b", "state": "no_answer", "problem": "gone", "age_s": None, "sample": None}


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**40, "1.0 TiB"), (2**52, "4096 TiB")]
)
def test_sizes_read_well(count, text):
    assert size(count) == text


def test_times_read_well():
    assert [span(5), span(600), span(10_000)] == ["5 s", "10 min", "3 h"]
