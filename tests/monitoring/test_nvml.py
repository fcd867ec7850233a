"""The door to NVML: absent values are None, failures are errors, no GPU is no error."""

import pynvml
import pytest

from kanctl.monitoring import nvml
from kanctl.monitoring.errors import NvmlUnavailable
from kanctl.monitoring.fake_nvml import FakeGpu, FakeNvml


def test_values_come_in_the_units_of_their_names():
    (gpu,) = nvml.NvmlReader(FakeNvml(gpus=[FakeGpu(power_mw=688_500, throttle_bits=0x40 | 0x1)])).read_gpus()

    assert gpu.power_w == 688.5
    assert gpu.memory_total_bytes == 141 * 2**30
    assert gpu.pci_address == "0000:1b:00.0"
    assert gpu.sm_clock_mhz == 1980
    assert gpu.memory_clock_mhz == 3201
    assert gpu.throttle_reasons == ("hw_thermal",)


def test_what_a_gpu_does_not_support_is_none():
    absent = FakeGpu(
        utilization_percent=None, memory_used_bytes=None, temperature_c=None, power_mw=None, power_limit_mw=None,
        clocks_mhz=None, throttle_bits=None, ecc_uncorrected_count=None,
    )  # fmt: skip
    (gpu,) = nvml.NvmlReader(FakeNvml(gpus=[absent])).read_gpus()

    values = [gpu.utilization_percent, gpu.memory_used_bytes, gpu.temperature_c, gpu.power_w, gpu.power_limit_w]
    assert [*values, gpu.sm_clock_mhz, gpu.throttle_reasons, gpu.ecc_uncorrected_count] == [None] * 8


def test_no_errors_counted_is_zero_and_not_none():
    (gpu,) = nvml.NvmlReader(FakeNvml(gpus=[FakeGpu(ecc_uncorrected_count=0, throttle_bits=0)])).read_gpus()

    assert gpu.ecc_uncorrected_count == 0
    assert gpu.throttle_reasons == ()


@pytest.mark.parametrize(
    ("function", "code", "step"),
    [
        ("nvmlInit", nvml.LIBRARY_DRIVER_MISMATCH, "reboot"),
        ("nvmlInit", nvml.DRIVER_NOT_LOADED, "modprobe"),
        ("nvmlDeviceGetHandleByIndex", nvml.GPU_IS_LOST, "xid"),
        ("nvmlDeviceGetPowerUsage", nvml.GPU_IS_LOST, "xid"),
    ],
)
def test_a_gpu_that_cannot_be_asked_is_an_error_with_a_next_step(function, code, step):
    with pytest.raises(NvmlUnavailable) as raised:
        nvml.NvmlReader(FakeNvml(gpus=[FakeGpu()], failures={function: code})).read_gpus()

    assert step in raised.value.next_step


def test_a_machine_without_gpus_has_nothing_to_open(tmp_path):
    assert nvml.count_pci_gpus(tmp_path) == 0


def test_gpus_are_counted_on_the_pci_bus_without_a_driver(tmp_path):
    for address, vendor, kind in [
        ("0000:1b:00.0", "0x10de", "0x030200"),
        ("0000:1b:00.1", "0x10de", "0x040300"),
        ("0000:02:00.0", "0x8086", "0x030000"),
    ]:
        folder = tmp_path / "bus/pci/devices" / address
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(vendor + "\n")
        (folder / "class").write_text(kind + "\n")

    assert nvml.count_pci_gpus(tmp_path) == 1


def test_the_fake_has_only_what_pynvml_has_and_the_same_codes():
    functions = [name for name in dir(FakeNvml) if name.startswith("nvml")]
    assert [name for name in functions if not hasattr(pynvml, name)] == []
    assert nvml.NOT_SUPPORTED == pynvml.NVML_ERROR_NOT_SUPPORTED
    assert nvml.LIBRARY_DRIVER_MISMATCH == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    assert nvml.GPU_IS_LOST == pynvml.NVML_ERROR_GPU_IS_LOST
    assert nvml.CLOCK_MEMORY == pynvml.NVML_CLOCK_MEM
    assert nvml.ECC_UNCORRECTED == pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
    bits = set(nvml.THROTTLE_BITS)
    assert pynvml.nvmlClocksEventReasonHwThermalSlowdown in bits
    assert pynvml.nvmlClocksEventReasonGpuIdle not in bits
