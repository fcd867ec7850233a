"""metrics.jsonl: one object a line, also after a run was killed in the middle of one."""

import json
import time
from pathlib import Path

import pytest

from kanctl.trainer.metrics import MetricsWriter


def records(run_dir: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_record_can_be_read_as_soon_as_it_is_written(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, enabled=True)
    writer.write("train", 3, loss_nats=1.5, grad_norm=None)
    [record] = records(tmp_path)
    assert (record["kind"], record["step"], record["loss_nats"], record["grad_norm"]) == ("train", 3, 1.5, None)
    assert record["time_unix_s"] == pytest.approx(time.time(), abs=60)
    assert writer.last_step == 3
    writer.close()


def test_a_resumed_run_goes_on_after_a_torn_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train"}\n{"kind": "tr')
    writer = MetricsWriter(tmp_path, enabled=True)
    writer.write("end", 1, reason="stopped")
    writer.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert lines[:2] == ['{"kind": "train"}', '{"kind": "tr']
    assert json.loads(lines[2])["reason"] == "stopped"


def test_ranks_that_do_not_write_leave_no_file(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, enabled=False)
    writer.write("train", 1)
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_json_has_not_is_a_mistake_of_ours(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path, enabled=True)
    with pytest.raises(ValueError, match="JSON"):
        writer.write("train", 1, loss_nats=float("nan"))
    writer.close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""
