"""What collect said on a real, idle H100 (driver 580.159.04) beside what nvidia-smi said within the same second."""

import csv
import json
from pathlib import Path

import pytest

from kanctl.monitoring.nvml import pci_address
from kanctl.monitoring.sample import from_dict

RECORDED = Path(__file__).parent / "recorded"


def test_collect_and_nvidia_smi_show_the_same_gpu():
    (gpu,) = from_dict(json.loads((RECORDED / "h100-idle.json").read_text())).gpus
    with (RECORDED / "h100-idle.csv").open() as file:
        (smi,) = csv.DictReader(file, skipinitialspace=True)

    assert gpu.name == smi["name"]
    assert gpu.uuid == smi["uuid"]
    assert gpu.pci_address == pci_address(smi["pci.bus_id"])
    assert gpu.utilization_percent == int(smi["utilization.gpu [%]"])
    assert gpu.memory_used_bytes == int(smi["memory.used [MiB]"]) * 2**20
    assert gpu.memory_total_bytes == int(smi["memory.total [MiB]"]) * 2**20
    assert gpu.temperature_c == int(smi["temperature.gpu"])
    assert gpu.power_w == pytest.approx(float(smi["power.draw [W]"]), rel=0.01)
    assert gpu.power_limit_w == float(smi["enforced.power.limit [W]"])
    assert gpu.sm_clock_mhz == int(smi["clocks.current.sm [MHz]"])
    assert gpu.memory_clock_mhz == int(smi["clocks.current.memory [MHz]"])
    assert gpu.ecc_uncorrected_count == int(smi["ecc.errors.uncorrected.volatile.total"])
