"""The collector and the exporter as the processes that run on a node."""

import json
import socket
import subprocess
import sys
import time
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from kanctl.monitoring.errors import NvmlUnavailable
from kanctl.monitoring.fake_nvml import FakeGpu, FakeNvml
from kanctl.monitoring.host import make_sample, read_host
from kanctl.monitoring.nvml import NvmlReader
from kanctl.monitoring.sample import from_dict
from kanctl.monitoring.serve import gauges

COLLECT = [sys.executable, "-m", "kanctl.monitoring.collect"]


def test_collect_prints_as_many_samples_as_asked_with_rates():
    done = subprocess.run([*COLLECT, "--interval", "0.2", "--count", "2"], capture_output=True, text=True, timeout=30)

    assert done.returncode == 0, done.stderr
    samples = [from_dict(json.loads(line)) for line in done.stdout.splitlines()]
    assert len(samples) == 2
    assert all(sample.cpu_used_percent is not None for sample in samples)
    assert samples[0].disks[0].path == "/"


def test_collect_ends_soon_after_nobody_reads_any_more():
    process = subprocess.Popen(
        [*COLLECT, "--interval", "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())
    process.stdout.close()
    start = time.monotonic()

    assert process.wait(timeout=10) == 0
    assert time.monotonic() - start < 5
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()


def test_collect_loads_nothing_heavy():
    words = "import sys, kanctl.monitoring.collect; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)

    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"pynvml", "torch", "numpy", "fabric", "rich", "typer", "prometheus_client"}


def test_collect_refuses_an_interval_of_nothing():
    done = subprocess.run([*COLLECT, "--interval", "0"], capture_output=True, text=True)

    assert done.returncode == 2
    assert "wanted more than 0 s" in done.stderr


def test_exporter_serves_this_machine_and_ends_when_told():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "kanctl.monitoring.serve", "--port", str(port)])
    try:
        text = fetch(f"http://127.0.0.1:{port}/metrics")
    finally:
        process.terminate()
    assert process.wait(timeout=10) == 0
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"kanctl_node_memory_total_bytes", "kanctl_disk_free_bytes", "kanctl_gpus_readable"} <= names


def fetch(url: str) -> str:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            assert time.monotonic() < deadline, f"{url} never answered"
            time.sleep(0.1)


def test_a_taken_port_is_one_clear_message():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = [sys.executable, "-m", "kanctl.monitoring.serve", "--port", str(port)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30)

    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "next: " in done.stderr


def test_gauges_carry_gpus_and_leave_out_what_is_none():
    gpus = NvmlReader(FakeNvml(gpus=[FakeGpu(throttle_bits=0x08), FakeGpu(power_mw=None)])).read_gpus()
    reading = read_host()
    families = {family.name: family for family in gauges(make_sample(reading, reading, gpus))}

    assert [point.labels["index"] for point in families["kanctl_gpu_power_watts"].samples] == ["0"]
    throttled = {
        (point.labels["index"], point.labels["reason"])
        for point in families["kanctl_gpu_throttled"].samples
        if point.value
    }
    assert throttled == {("0", "hw_slowdown")}
    assert families["kanctl_gpus_readable"].samples[0].value == 1


def test_gpus_that_cannot_be_asked_are_told_apart_from_none():
    error = NvmlUnavailable("8 GPUs on the PCI bus, but no driver", "install it")
    reading = read_host()
    families = {family.name: family for family in gauges(make_sample(reading, reading, (), str(error)))}

    assert families["kanctl_gpus_readable"].samples[0].value == 0
    assert families["kanctl_gpu_power_watts"].samples == []
