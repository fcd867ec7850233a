"""`kanctl train bench` as its users meet it: the table, ratios, failures, exit codes, and the file."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from kanctl.cli.commands.train import Bench
from kanctl.cli.training.bench import bench_rows, bench_table, failures
from kanctl.trainer.bench import ops
from kanctl.trainer.bench.model import HEADS


def row(way: str, ms: float, **more: Any) -> dict[str, Any]:
    return {
        "op": "edge", "case": "1 -> 2", "way": way, "forward_ms": ms, "both_ms": 2 * ms, "extra_mb": None, "errors": {},
        **more,
    }  # fmt: skip


def test_ratios_are_the_baselines_time_over_the_ways() -> None:
    rows = [row("ours", 2.0, extra_mb=1234.5, errors={"y": 1e-3, "dx": 2e-3}), row("gemm", 1.0)]
    shown = bench_rows({"rows": rows, "baselines": {"edge": "gemm"}})
    assert shown[0] == ("edge", "1 -> 2", "ours", "2.000 ms (0.50x)", "4.000 ms (0.50x)", "1,234", "2.0e-03")
    assert shown[1] == ("edge", "1 -> 2", "gemm", "1.000 ms (1.00x)", "2.000 ms (1.00x)", "-", "-")


def test_a_ratio_is_to_the_baseline_timed_in_turn_where_there_is_one() -> None:
    rows = [row("ours", 2.0, baseline_forward_ms=3.0, baseline_both_ms=6.0), row("gemm", 1.0)]
    shown = bench_rows({"rows": rows, "baselines": {"edge": "gemm"}})
    assert shown[0][3:5] == ("2.000 ms (1.50x)", "4.000 ms (1.50x)")


def test_without_its_baseline_a_way_has_no_ratio_and_a_failure_has_a_line() -> None:
    [shown] = bench_rows({"rows": [row("ours", 2.0)], "baselines": {"edge": "gemm"}})
    assert shown[3] == "2.000 ms"
    failed = [{"op": "edge", "case": "1 -> 2", "way": "gemm", "error": "out of memory"}]
    assert failures({"failed": failed}) == ["edge, 1 -> 2, gemm: out of memory"]
    assert failures({"failed": [{"variant": "kan", "lr": 0.1, "error": "inf"}]}) == ["kan, 0.1: inf"]


def test_decoding_has_no_backward_pass_and_trainings_have_a_table_of_their_own() -> None:
    [shown] = bench_rows({"rows": [row("ours", 2.0, both_ms=None)], "baselines": {}})
    assert shown[4] == "-"
    assert bench_table("decode", {"rows": [], "baselines": {}})[0][0] == "op"
    assert bench_table("model", {"rows": []}) == (HEADS, [])


def test_every_op_can_be_measured_by_itself() -> None:
    assert {str(each) for each in Bench} == {"ops", "model", *ops.GROUPS}


def test_the_ops_are_measured_here_and_kept_in_a_file(tmp_path: Path) -> None:
    out = tmp_path / "ops.json"
    words = ["train", "bench", "edge", "--local", "--only", "192 -> 768", "--output", str(out), "--json"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "KANCTL_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "kanctl.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads(out.read_text())
    assert {"gemm", "ours"} <= {row["way"] for row in found["rows"]}
    assert found["failed"] == []
