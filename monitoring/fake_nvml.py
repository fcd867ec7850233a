"""A stand-in for the module pynvml that answers from plain values: tests and demonstrations need no GPU.

It has the functions that nvml.py calls, with pynvml's names and units, and fails as NVML does: a value None is "not
supported", and `failures` makes a function raise any code of nvml.h.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

NOT_SUPPORTED = 3


class FakeNvmlError(Exception):
    """Carries NVML's code as pynvml.NVMLError does."""

    def __init__(self, value: int) -> None:
        super().__init__(f"NVML code {value}")
        self.value = value


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeGpu:
    """One GPU's values, in the units of pynvml. None: not supported."""

    name: str = "NVIDIA H200"
    uuid: str = "GPU-00000000-0000-0000-0000-000000000000"
    bus_id: str = "00000000:1B:00.0"
    utilization_percent: int | None = 97
    memory_used_bytes: int | None = 120 * 2**30
    memory_total_bytes: int | None = 141 * 2**30
    temperature_c: int | None = 61
    power_mw: int | None = 688_000
    power_limit_mw: int | None = 700_000
    clocks_mhz: tuple[int, int, int] | None = (1980, 1980, 3201)
    throttle_bits: int | None = 0
    ecc_uncorrected_count: int | None = 0


@dataclass(slots=True)
class FakeNvml:
    """Pass it to NvmlReader in pynvml's place. `failures`: function name -> NVML code to raise."""

    gpus: Sequence[FakeGpu] = ()
    failures: Mapping[str, int] = field(default_factory=dict)
    NVMLError: type[FakeNvmlError] = FakeNvmlError
    nvmlMemory_v2: int = 0x02000028
    is_open: bool = False

    def nvmlInit(self) -> None:
        self._maybe_fail("nvmlInit")
        self.is_open = True

    def nvmlShutdown(self) -> None:
        self.is_open = False

    def nvmlDeviceGetCount(self) -> int:
        self._maybe_fail("nvmlDeviceGetCount")
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        self._maybe_fail("nvmlDeviceGetHandleByIndex")
        return self.gpus[index]

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> str:
        return gpu.uuid

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> str:
        return gpu.name

    def nvmlDeviceGetPciInfo(self, gpu: FakeGpu) -> SimpleNamespace:
        return SimpleNamespace(busId=gpu.bus_id)

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu, _version: int) -> SimpleNamespace:
        used = self._value("nvmlDeviceGetMemoryInfo", gpu.memory_used_bytes)
        return SimpleNamespace(used=used, total=gpu.memory_total_bytes)

    def nvmlDeviceGetUtilizationRates(self, gpu: FakeGpu) -> SimpleNamespace:
        return SimpleNamespace(gpu=self._value("nvmlDeviceGetUtilizationRates", gpu.utilization_percent))

    def nvmlDeviceGetTemperature(self, gpu: FakeGpu, _sensor: int) -> int:
        return self._value("nvmlDeviceGetTemperature", gpu.temperature_c)

    def nvmlDeviceGetPowerUsage(self, gpu: FakeGpu) -> int:
        return self._value("nvmlDeviceGetPowerUsage", gpu.power_mw)

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu: FakeGpu) -> int:
        return self._value("nvmlDeviceGetEnforcedPowerLimit", gpu.power_limit_mw)

    def nvmlDeviceGetClockInfo(self, gpu: FakeGpu, clock: int) -> int:
        return self._value("nvmlDeviceGetClockInfo", gpu.clocks_mhz and gpu.clocks_mhz[clock])

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, gpu: FakeGpu) -> int:
        return self._value("nvmlDeviceGetCurrentClocksThrottleReasons", gpu.throttle_bits)

    def nvmlDeviceGetTotalEccErrors(self, gpu: FakeGpu, _kind: int, _since: int) -> int:
        return self._value("nvmlDeviceGetTotalEccErrors", gpu.ecc_uncorrected_count)

    def _value(self, function: str, value: int | None) -> int:
        self._maybe_fail(function)
        if value is None:
            raise FakeNvmlError(NOT_SUPPORTED)
        return value

    def _maybe_fail(self, function: str) -> None:
        if function in self.failures:
            raise FakeNvmlError(self.failures[function])
