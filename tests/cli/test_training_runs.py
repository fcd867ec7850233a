"""What `train status` tells of a run, from run folders on this machine."""

import json
import time
from pathlib import Path

import pytest

from kanctl.cli.training.actions import stop_run
from kanctl.cli.training.follow import describe, log_lines
from kanctl.cli.training.launch import Launch, read_launch, write_launch, write_run_folder
from kanctl.cli.training.names import check_name, new_run_name, run_dir, unit_name
from kanctl.cli.training.place import LocalPlace
from kanctl.cli.training.runs import list_runs, pick_run, read_status
from kanctl.errors import BadInputError, KanctlError

CONFIG: dict[str, object] = {"train": {"steps": 20}, "data": {"corpus": "stdlib"}}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalPlace:
    monkeypatch.setenv("KANCTL_HOME", str(tmp_path))
    return LocalPlace()


def make_launch(run: str, *, pid: int | None = None, started_unix_s: float = 0.0) -> Launch:
    return Launch(
        run=run,
        nodes=(),
        processes_per_node=(1,),
        unit="",
        started_unix_s=started_unix_s,
        rendezvous="standalone",
        local_pid=pid,
    )


def train_record(step: int, loss: float) -> dict[str, object]:
    return {
        "kind": "train",
        "step": step,
        "time_unix_s": time.time(),
        "loss_nats": loss,
        "tokens_per_s": 1000.0,
    }


def write_metrics(place: LocalPlace, run: str, records: list[dict[str, object]], tail: str = "") -> None:
    lines = "".join(json.dumps(record) + "\n" for record in records)
    Path(run_dir(place.data_dir, run), "metrics.jsonl").write_text(lines + tail)


def test_a_run_folder_is_never_written_over(place: LocalPlace) -> None:
    write_run_folder(place, "tiny-1", CONFIG)
    with pytest.raises(KanctlError, match="has a run of the name tiny-1"):
        write_run_folder(place, "tiny-1", CONFIG)


def test_a_launch_record_comes_back_as_written(place: LocalPlace) -> None:
    write_run_folder(place, "tiny-1", CONFIG)
    launch = make_launch("tiny-1", pid=12)
    write_launch(place, launch)
    assert read_launch(place, "tiny-1") == launch


def test_a_run_without_launch_record_is_not_started(place: LocalPlace) -> None:
    write_run_folder(place, "tiny-1", CONFIG)
    assert read_status(place, "tiny-1").state == "not-started"


def test_a_run_whose_process_is_gone_without_an_end_record_has_failed(place: LocalPlace) -> None:
    write_run_folder(place, "tiny-1", CONFIG)
    write_launch(place, make_launch("tiny-1", pid=2**22 + 1))
    assert read_status(place, "tiny-1").state == "failed"


def test_a_finished_run_tells_first_and_last_loss_and_bits_per_byte(place: LocalPlace) -> None:
    write_run_folder(place, "tiny-1", CONFIG)
    write_launch(place, make_launch("tiny-1"))
    records = [
        train_record(1, 5.5),
        train_record(20, 2.5),
        {"kind": "eval", "step": 20, "time_unix_s": time.time(), "val_loss_nats": 2.4, "val_bits_per_byte": 3.46},
        {"kind": "end", "step": 20, "time_unix_s": time.time(), "reason": "finished"},
    ]
    write_metrics(place, "tiny-1", records)
    status = read_status(place, "tiny-1")
    assert (status.state, status.step, status.steps_total) == ("finished", 20, 20)
    assert (status.loss_first_nats, status.loss_last_nats, status.val_bits_per_byte) == (5.5, 2.5, 3.46)
    assert "step 20/20, loss 2.500 nats (first 5.500), validation 3.460 bits/byte" in describe(status)


def test_a_torn_last_line_does_not_hide_the_progress(place: LocalPlace) -> None:
    write_run_folder(place, "tiny-1", CONFIG)
    write_launch(place, make_launch("tiny-1"))
    write_metrics(place, "tiny-1", [train_record(1, 5.5), train_record(2, 5.0)], tail='{"kind": "tra')
    assert read_status(place, "tiny-1").step == 2


def test_the_end_record_of_an_earlier_launch_does_not_end_a_resumed_run(place: LocalPlace) -> None:
    write_run_folder(place, "tiny-1", CONFIG)
    write_metrics(
        place, "tiny-1", [train_record(1, 5.5), {"kind": "end", "step": 1, "time_unix_s": 10.0, "reason": "stopped"}]
    )
    write_launch(place, make_launch("tiny-1", started_unix_s=11.0))
    assert read_status(place, "tiny-1").state == "failed"


def test_the_newest_run_is_the_default_and_a_wrong_name_lists_what_there_is(place: LocalPlace) -> None:
    with pytest.raises(BadInputError, match="no run yet"):
        pick_run(place, None)
    write_run_folder(place, "tiny-1", CONFIG)
    time.sleep(0.02)
    write_run_folder(place, "tiny-2", CONFIG)
    assert list_runs(place) == ["tiny-1", "tiny-2"]
    assert pick_run(place, None) == "tiny-2"
    with pytest.raises(BadInputError, match="the newest there: tiny-1, tiny-2"):
        pick_run(place, "tiny-3")


def test_stopping_a_run_that_is_over_is_no_error(place: LocalPlace) -> None:
    write_run_folder(place, "tiny-1", CONFIG)
    write_launch(place, make_launch("tiny-1", pid=2**22 + 1))
    assert stop_run(place, "tiny-1") == {place.name: "stopped"}
    # Also when it was stopped before it could write an end record.
    assert read_status(place, "tiny-1").state == "stopped"


def test_log_lines_carry_their_node(place: LocalPlace) -> None:
    folder = Path(write_run_folder(place, "tiny-1", CONFIG), "logs")
    folder.joinpath("node1.log").write_text("a\nb\n")
    folder.joinpath("node2.log").write_text("c\n")
    assert list(log_lines(place, "tiny-1", lines=1, follow=False)) == ["node1 | b", "node2 | c"]


@pytest.mark.parametrize("name", ["", "-a", "A", "a b", "a;b", "a/../b", "x" * 64, "ä"])
def test_names_that_could_reach_a_shell_or_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(BadInputError, match="lower-case letters, digits and hyphens"):
        check_name("run", name)


def test_a_new_run_name_is_a_valid_name_and_unit() -> None:
    assert unit_name(new_run_name("tiny")).startswith("kanctl-train-tiny-")
