"""`python -m kanctl.monitoring.collect`: one JSON sample of this machine per line, until nobody reads any more."""

import argparse
import json
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .errors import NvmlUnavailable
from .host import make_sample, read_host
from .nvml import NvmlReader, open_nvml
from .sample import GpuSample, NodeSample, to_dict

# The first sample comes this soon, so that its rates mean something and nobody waits for it.
FIRST_INTERVAL_S = 0.5


class Collector:
    """Takes samples; keeps NVML open and the reading before, which rates need."""

    def __init__(self, paths: tuple[str, ...], sys_root: Path = Path("/sys")) -> None:
        self._paths = paths
        self._sys_root = sys_root
        self._nvml: NvmlReader | None = None
        self._before = read_host(paths, sys_root)

    def take(self) -> NodeSample:
        """A sample over the time since the last one. GPUs that cannot be asked are named in it, never raised."""
        after = read_host(self._paths, self._sys_root)
        gpus, problem = self._read_gpus()
        sample = make_sample(self._before, after, gpus, problem)
        self._before = after
        return sample

    def _read_gpus(self) -> tuple[tuple[GpuSample, ...], str | None]:
        try:
            # Tried again at every sample: the driver may be installed while this runs.
            self._nvml = self._nvml or open_nvml(self._sys_root)
            return (self._nvml.read_gpus() if self._nvml else ()), None
        except NvmlUnavailable as error:
            self._nvml = None
            return (), f"{error}; next: {error.next_step}"


def samples(collector: Collector, interval_s: float, count: int | None) -> Iterator[NodeSample]:
    """`count` samples (without end for None), one every `interval_s`; ends when stdout's reader is gone."""
    done = 0
    wait_s = min(interval_s, FIRST_INTERVAL_S)
    due_s = time.monotonic() + wait_s
    while count is None or done < count:
        if not _wait(due_s - time.monotonic()):
            return
        yield collector.take()
        done += 1
        # From the plan, not from now: reading takes time, and the samples should not drift.
        due_s = max(due_s + interval_s, time.monotonic())


def _wait(seconds: float) -> bool:
    """Sleep; False as soon as the reader of stdout has gone away (a closed SSH session sends no signal)."""
    poller = select.poll()
    poller.register(sys.stdout.fileno(), 0)
    return not poller.poll(max(0.0, seconds) * 1000)


def shared_paths(shared_dir: str | None) -> tuple[str, ...]:
    """The file systems to look at."""
    return ("/", shared_dir) if shared_dir else ("/",)


def main(argv: list[str] | None = None) -> int:
    """Entry point of the module; always 0."""
    parser = argparse.ArgumentParser(description="Print one JSON sample of this machine per line.")
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between samples")
    parser.add_argument("--count", type=int, default=None, help="stop after this many")
    parser.add_argument("--shared-dir", default=None, help="a second file system to look at")
    options = parser.parse_args(argv)
    if options.interval <= 0:
        parser.error(f"--interval: wanted more than 0 s, found {options.interval:g}")
    try:
        for sample in samples(Collector(shared_paths(options.shared_dir)), options.interval, options.count):
            sys.stdout.write(json.dumps(to_dict(sample)) + "\n")
            sys.stdout.flush()
    except (BrokenPipeError, KeyboardInterrupt):
        # Nobody reads any more; the interpreter must not try to flush at exit.
        sys.stdout = None
    return 0


if __name__ == "__main__":
    sys.exit(main())
