"""`python -m kanctl.monitoring.serve`: this machine's samples for Prometheus, at http://ADDRESS:PORT/metrics.

Samples are taken when Prometheus asks, never in between, so an exporter that nobody asks costs nothing.
"""

import argparse
import signal
import sys
import threading
from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import start_http_server
from prometheus_client.registry import Collector as PrometheusCollector

from .collect import Collector, shared_paths
from .errors import ExporterPortTaken
from .fields import FIELDS, LABELS, Field
from .nvml import THROTTLE_BITS
from .sample import NodeSample

DEFAULT_PORT = 9877
# Only this machine: the exporter knows no password. A provisioning role that wants another address passes it.
DEFAULT_BIND = "127.0.0.1"


class SampleExporter(PrometheusCollector):
    """Turns a fresh sample into Prometheus gauges each time it is asked."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        # Prometheus may ask twice at once; rates need one reading after the other.
        self._lock = threading.Lock()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Every gauge of the moment."""
        with self._lock:
            sample = self._collector.take()
        return gauges(sample)


def gauges(sample: NodeSample) -> list[GaugeMetricFamily]:
    """The sample as gauges, in the order of fields.py; a value that is None has no series. Pure."""
    families = [_gauge(field, sample) for field in FIELDS]
    reachable = GaugeMetricFamily("kanctl_gpus_readable", "1 when the GPUs could be asked (or there are none), else 0")
    reachable.add_metric([], 0.0 if sample.gpus_problem else 1.0)
    return [*families, reachable]


def _gauge(field: Field, sample: NodeSample) -> GaugeMetricFamily:
    parts = {"node": (sample,), "disk": sample.disks, "nic": sample.nics, "gpu": sample.gpus}[field.scope]
    names = list(LABELS[field.scope])
    by_reason = field.name == "throttle_reasons"
    family = GaugeMetricFamily(
        field.prometheus, f"{field.what} ({field.unit})", labels=[*names, *(["reason"] if by_reason else [])]
    )
    for part in parts:
        labels = [str(getattr(part, name)) for name in names]
        value = getattr(part, field.name)
        if value is None:
            continue
        if by_reason:
            for reason in THROTTLE_BITS.values():
                family.add_metric([*labels, reason], float(reason in value))
        else:
            family.add_metric(labels, float(value))
    return family


def main(argv: list[str] | None = None) -> int:
    """Entry point of the module; serves until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serve this machine's samples for Prometheus.")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    parser.add_argument("--bind", default=DEFAULT_BIND, help="address to listen on")
    parser.add_argument("--shared-dir", default=None, help="a second file system to look at")
    options = parser.parse_args(argv)
    registry = CollectorRegistry()
    registry.register(SampleExporter(Collector(shared_paths(options.shared_dir))))
    try:
        server, thread = start_http_server(options.port, addr=options.bind, registry=registry)
    except OSError as error:
        problem = ExporterPortTaken(
            f"cannot listen on {options.bind}:{options.port}: {error.strerror}",
            f"ss -ltnp 'sport = :{options.port}' shows who does; --port takes another",
        )
        sys.stderr.write(f"{problem}\n  next: {problem.next_step}\n")
        return problem.exit_code
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, lambda *_: ended.set())
    ended.wait()
    server.shutdown()
    thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
