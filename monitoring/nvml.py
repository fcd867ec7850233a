"""The only door to NVML, NVIDIA's library for asking GPUs. `library` is the module pynvml or a FakeNvml.

A value that a GPU does not support is None. GPUs that are there but cannot be asked raise NvmlUnavailable. A machine
without a GPU has an empty tuple. A call that hangs in the driver hangs here too: whoever waits sees the age of the
last sample grow.
"""

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from .errors import NvmlUnavailable
from .sample import GpuSample

T = TypeVar("T")

NVIDIA_VENDOR = "0x10de"
# PCI classes of a GPU: VGA controller and 3D controller; NVIDIA's audio and bridge functions have others.
GPU_CLASSES = ("0x0300", "0x0302")

# Codes of nvmlReturn_t in nvml.h, repeated here so that a fake needs no pynvml.
NOT_SUPPORTED = 3
NO_PERMISSION = 4
DRIVER_NOT_LOADED = 9
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15
LIBRARY_DRIVER_MISMATCH = 18
# What a GPU, a driver or a container does not offer; anything else is a failure to ask.
ABSENT = {NOT_SUPPORTED, NO_PERMISSION, FUNCTION_NOT_FOUND}

NEXT_STEPS = {
    DRIVER_NOT_LOADED: "modprobe nvidia; dmesg | grep -i nvrm",
    LIBRARY_NOT_FOUND: "kanctl provision nodes installs the driver where kanctl_gpus declares GPUs",
    GPU_IS_LOST: "dmesg | grep -i xid; the GPU needs a reset or the node a power cycle",
    LIBRARY_DRIVER_MISMATCH: "the driver was updated under a running kernel module: reboot the node",
}

# Bits of nvmlDeviceGetCurrentClocksEventReasons (nvml.h); idle and "clocks as set" are no throttling.
THROTTLE_BITS = {
    0x04: "sw_power_cap",
    0x08: "hw_slowdown",
    0x20: "sw_thermal",
    0x40: "hw_thermal",
    0x80: "hw_power_brake",
}
SENSOR_GPU = 0
CLOCK_SM = 1
CLOCK_MEMORY = 2
ECC_UNCORRECTED = 1
ECC_SINCE_BOOT = 0


class NvmlReader:
    """NVML opened for reading; close it, or use it as a context."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._ask(library.nvmlInit, "NVML")

    def __enter__(self) -> "NvmlReader":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the library."""
        self._ask(self._library.nvmlShutdown, "NVML")

    def read_gpus(self) -> tuple[GpuSample, ...]:
        """Every GPU in NVML's order. Raises NvmlUnavailable. Shell: nvidia-smi -q."""
        count = self._ask(self._library.nvmlDeviceGetCount, "the number of GPUs")
        return tuple(self._read_gpu(index) for index in range(count))

    def _read_gpu(self, index: int) -> GpuSample:
        nvml = self._library
        where = f"GPU {index}"
        handle = self._ask(lambda: nvml.nvmlDeviceGetHandleByIndex(index), where)

        def read(function: str, *arguments: object) -> Any:
            return self._absent_is_none(lambda: getattr(nvml, function)(handle, *arguments), where)

        # Version 2 leaves out what the driver keeps for itself (480 MiB of an idle H100), as nvidia-smi does.
        memory = read("nvmlDeviceGetMemoryInfo", nvml.nvmlMemory_v2)
        utilization = read("nvmlDeviceGetUtilizationRates")
        reasons = read("nvmlDeviceGetCurrentClocksThrottleReasons")
        return GpuSample(
            index=index,
            uuid=self._ask(lambda: nvml.nvmlDeviceGetUUID(handle), where),
            name=self._ask(lambda: nvml.nvmlDeviceGetName(handle), where),
            pci_address=pci_address(self._ask(lambda: nvml.nvmlDeviceGetPciInfo(handle), where).busId),
            utilization_percent=None if utilization is None else utilization.gpu,
            memory_used_bytes=None if memory is None else memory.used,
            memory_total_bytes=None if memory is None else memory.total,
            temperature_c=read("nvmlDeviceGetTemperature", SENSOR_GPU),
            power_w=in_watts(read("nvmlDeviceGetPowerUsage")),
            power_limit_w=in_watts(read("nvmlDeviceGetEnforcedPowerLimit")),
            sm_clock_mhz=read("nvmlDeviceGetClockInfo", CLOCK_SM),
            memory_clock_mhz=read("nvmlDeviceGetClockInfo", CLOCK_MEMORY),
            throttle_reasons=None if reasons is None else throttle_names(reasons),
            ecc_uncorrected_count=read("nvmlDeviceGetTotalEccErrors", ECC_UNCORRECTED, ECC_SINCE_BOOT),
        )

    def _absent_is_none(self, call: Callable[[], T], where: str) -> T | None:
        try:
            return call()
        except self._library.NVMLError as error:
            if error.value in ABSENT:
                return None
            raise _unavailable(error, where) from error

    def _ask(self, call: Callable[[], T], where: str) -> T:
        try:
            return call()
        except self._library.NVMLError as error:
            raise _unavailable(error, where) from error


def open_nvml(sys_root: Path = Path("/sys")) -> NvmlReader | None:
    """NVML ready to be asked; None on a machine without an NVIDIA GPU. Raises NvmlUnavailable."""
    count = count_pci_gpus(sys_root)
    if count == 0 and not Path("/proc/driver/nvidia/version").exists():
        return None
    try:
        import pynvml
    except ImportError as error:
        raise NvmlUnavailable(
            f"{count} GPUs on the PCI bus, but Python's binding of NVML is missing", "pip install 'kanctl[monitor]'"
        ) from error
    return NvmlReader(pynvml)


def count_pci_gpus(sys_root: Path) -> int:
    """NVIDIA GPUs on the PCI bus, with or without a driver. Shell: lspci -d 10de::0302; lspci -d 10de::0300."""
    devices = sys_root.glob("bus/pci/devices/*")
    return sum(
        (device / "vendor").read_text().strip() == NVIDIA_VENDOR
        and (device / "class").read_text().strip()[:6] in GPU_CLASSES
        for device in devices
    )


def pci_address(bus_id: str | bytes) -> str:
    """NVML's 00000000:1B:00.0 as Linux writes it: 0000:1b:00.0."""
    text = bus_id.decode() if isinstance(bus_id, bytes) else bus_id
    domain, _, rest = text.lower().partition(":")
    return f"{domain[-4:]}:{rest}"


def throttle_names(bits: int) -> tuple[str, ...]:
    """The reasons why the clock is lower than it could be. Shell: nvidia-smi -q -d PERFORMANCE."""
    return tuple(name for bit, name in THROTTLE_BITS.items() if bits & bit)


def in_watts(milliwatts: int | None) -> float | None:
    """NVML counts power in milliwatts."""
    return None if milliwatts is None else milliwatts / 1000


def _unavailable(error: Any, where: str) -> NvmlUnavailable:
    return NvmlUnavailable(f"{where} could not be asked: {error}", NEXT_STEPS.get(error.value, "nvidia-smi -q"))
