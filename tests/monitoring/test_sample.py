"""Samples survive JSON, every value is in the table of fields, rates come from two readings."""

import json
from dataclasses import fields, replace

import pytest

from kanctl.monitoring.errors import SampleInvalid
from kanctl.monitoring.fake_nvml import FakeGpu, FakeNvml
from kanctl.monitoring.fields import FIELDS, LABELS
from kanctl.monitoring.host import make_sample, rate, read_host, read_nics, read_rdma_ports
from kanctl.monitoring.nvml import NvmlReader
from kanctl.monitoring.sample import DiskSample, GpuSample, NicSample, NodeSample, from_dict, to_dict

GPUS = NvmlReader(FakeNvml(gpus=[FakeGpu(), FakeGpu(power_mw=None, throttle_bits=None)])).read_gpus()
# Identity, time and structure; everything else of a sample is a measured value.
NOT_MEASURED = {
    NodeSample: {"time_unix_s", "interval_s", "hostname", "disks", "nics", "gpus", "gpus_problem"},
    DiskSample: {"path"},
    NicSample: {"name", "is_rdma"},
    GpuSample: {"index", "uuid", "name", "pci_address"},
}


@pytest.fixture
def sample():
    reading = read_host(("/",))
    later = replace(
        reading,
        monotonic_s=reading.monotonic_s + 2,
        cpu_busy_s=reading.cpu_busy_s + 1,
        cpu_total_s=reading.cpu_total_s + 4,
        disk_read_bytes=2000,
        nic_bytes={"eth0": (3000, 500)},
        rdma_bytes={"mlx5_0/1": (10_000, 0)},
    )
    before = replace(reading, disk_read_bytes=1000, nic_bytes={"eth0": (1000, 900)}, rdma_bytes={"mlx5_0/1": (0, 0)})
    return make_sample(before, later, GPUS)


def test_a_sample_survives_json(sample):
    assert from_dict(json.loads(json.dumps(to_dict(sample)))) == sample


def test_a_newer_nodes_extra_values_are_left_out(sample):
    assert from_dict({**to_dict(sample), "from_the_future": 1}) == sample


def test_a_missing_value_is_named(sample):
    document = to_dict(sample)
    del document["load_1min"]

    with pytest.raises(SampleInvalid, match="load_1min"):
        from_dict(document)


def test_rates_hold_for_the_time_between_two_readings(sample):
    assert sample.interval_s == pytest.approx(2)
    assert sample.cpu_used_percent == pytest.approx(25)
    assert sample.disk_read_bytes_per_s == pytest.approx(500)


def test_a_counter_that_was_reset_has_no_rate(sample):
    (nic, rdma) = sample.nics
    assert nic == NicSample(name="eth0", received_bytes_per_s=1000, sent_bytes_per_s=None)
    assert rdma == NicSample(name="mlx5_0/1", is_rdma=True, received_bytes_per_s=5000, sent_bytes_per_s=0)
    assert sample.network_bytes_per_s() == (5000, 0)
    assert rate(5, 6, 0) is None


def test_every_measured_value_is_in_the_table_once():
    scopes = {"node": NodeSample, "disk": DiskSample, "nic": NicSample, "gpu": GpuSample}
    for scope, kind in scopes.items():
        measured = {field.name for field in fields(kind)} - NOT_MEASURED[kind]
        listed = [field.name for field in FIELDS if field.scope == scope]
        assert sorted(listed) == sorted(measured), scope
        assert set(LABELS[scope]) <= NOT_MEASURED[kind]
    assert len({field.prometheus for field in FIELDS}) == len(FIELDS)


def make_nic(root, name, *, is_real, received=1):
    folder = root / "class/net" / name / "statistics"
    folder.mkdir(parents=True)
    (folder / "rx_bytes").write_text(f"{received}\n")
    (folder / "tx_bytes").write_text("2\n")
    if is_real:
        (folder.parent / "device").mkdir()


def test_a_bridge_does_not_count_its_members_twice(tmp_path):
    make_nic(tmp_path, "lo", is_real=False)
    make_nic(tmp_path, "br0", is_real=False)
    make_nic(tmp_path, "eno1", is_real=True, received=7)

    assert read_nics(tmp_path) == {"eno1": (7, 2)}


def test_a_container_shows_its_virtual_interface(tmp_path):
    make_nic(tmp_path, "lo", is_real=False)
    make_nic(tmp_path, "eth0", is_real=False)

    assert read_nics(tmp_path) == {"eth0": (1, 2)}


def test_rdma_counters_are_words_of_four_bytes(tmp_path):
    folder = tmp_path / "class/infiniband/mlx5_0/ports/1/counters"
    folder.mkdir(parents=True)
    (folder / "port_rcv_data").write_text("100\n")
    (folder / "port_xmit_data").write_text("25\n")

    assert read_rdma_ports(tmp_path) == {"mlx5_0/1": (400, 100)}
