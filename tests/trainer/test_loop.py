"""The loop on a fake engine: what it records, when it evaluates, saves and ends."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kanctl.trainer.checkpoint import whole_checkpoints
from kanctl.trainer.config import RunConfig, apply_overrides
from kanctl.trainer.data.loader import Corpus
from kanctl.trainer.errors import CheckpointInvalid, CorpusInvalid, TrainingFailed
from kanctl.trainer.loop import Training, train
from kanctl.trainer.metrics import MetricsWriter
from kanctl.trainer.schedule import learning_rate
from kanctl.trainer.stop import StopRequest


class Run:
    """One process of a run: engine, stop request, and what it said."""

    def __init__(self, run_dir: Path, corpus_dir: Path, config: RunConfig, engine: Any) -> None:
        self.run_dir, self.config, self.engine, self.stop = run_dir, config, engine, StopRequest()
        self.corpus = Corpus(corpus_dir)
        self.said: list[str] = []

    def train(self) -> str:
        metrics = MetricsWriter(self.run_dir, enabled=self.engine.rank == 0)
        try:
            return train(
                Training(
                    engine=self.engine,
                    corpus=self.corpus,
                    config=self.config,
                    run_dir=self.run_dir,
                    metrics=metrics,
                    stop=self.stop,
                    say=self.said.append,
                )
            )
        finally:
            metrics.close()

    def records(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.run_dir / "metrics.jsonl").read_text().splitlines()
        return [record for record in map(json.loads, lines) if record["kind"] == kind]

    def stop_after(self, step: int) -> None:
        def ask(now: int) -> None:
            self.stop.asked = now >= step

        self.engine.after_step = ask


@pytest.fixture
def run(tmp_path: Path, corpus_dir: Path, micro_config: RunConfig, make_engine: Any) -> Run:
    return Run(tmp_path, corpus_dir, micro_config, make_engine(micro_config))


def test_a_run_records_evaluates_saves_and_finishes(run: Run) -> None:
    assert run.train() == "finished"
    assert [record["step"] for record in run.records("train")] == [1, 2, 4, 6, 8]
    assert [record["step"] for record in run.records("eval")] == [4, 8]
    assert [path.name for path in whole_checkpoints(run.run_dir)] == ["step-000004", "step-000008"]
    [end] = run.records("end")
    assert (end["step"], end["reason"]) == (8, "finished")
    last_line = (run.run_dir / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last_line) == end
    assert run.said[-1] == "finished at step 8"


def test_train_records_hold_the_documented_keys_with_their_values(run: Run) -> None:
    run.train()
    record = run.records("train")[2]
    assert set(record) == {
        *("kind", "step", "time_unix_s", "loss_nats", "lr", "tokens_per_s", "tokens", "grad_norm"),
    }
    assert record["loss_nats"] == 1.0
    assert record["grad_norm"] == 1.5
    assert record["tokens"] == 4 * 2 * 16
    assert record["tokens_per_s"] > 0
    assert record["lr"] == learning_rate(4, 8, run.config.optim)
    assert run.engine.rates == [learning_rate(step, 8, run.config.optim) for step in range(1, 9)]


def test_an_evaluation_covers_the_first_windows_once_and_counts_bytes_without_marks(run: Run) -> None:
    run.train()
    windows = run.corpus.validation_windows(16)[:3]
    assert torch.equal(torch.cat(run.engine.evaluated[:2]), windows)
    marks = int((windows[:, 1:] == 256).sum())
    first = run.records("eval")[0]
    assert set(first) == {"kind", "step", "time_unix_s", "val_loss_nats", "val_bits_per_byte"}
    assert first["val_loss_nats"] == pytest.approx(2.0)
    assert first["val_bits_per_byte"] == pytest.approx(2.0 * 48 / (48 - marks) / math.log(2))


def test_ranks_share_the_windows_out_and_one_may_get_none(
    tmp_path: Path, corpus_dir: Path, micro_config: RunConfig, make_engine: Any
) -> None:
    config = apply_overrides(micro_config, ["train.steps=4"])
    windows = Corpus(corpus_dir).validation_windows(16)[:3]
    for rank in (1, 2, 3):
        run_dir = tmp_path / f"as-rank-{rank}"
        # Rank 0 would make it.
        (run_dir / "checkpoints" / "step-000004.part").mkdir(parents=True)
        engine = make_engine(config, world_size=4, rank=rank)
        counted = []
        # As if the other ranks had evaluated something.
        engine.mean = lambda values, counted=counted: (
            counted.append(values[1]) or [values[0] + 1, values[1] + 1, values[2]]
        )
        assert Run(run_dir, corpus_dir, config, engine).train() == "finished"
        # One that has none passes all the same, since under ZeRO 3 the others wait for it; it counts no token.
        [evaluated] = engine.evaluated
        assert torch.equal(evaluated, windows[rank : rank + 1] if rank < 3 else windows[:1])
        assert counted[-1] == (16 if rank < 3 else 0)


def test_a_stop_ends_after_the_step_with_a_checkpoint(run: Run) -> None:
    run.stop_after(3)
    assert run.train() == "stopped"
    assert run.engine.steps == 3
    assert [path.name for path in whole_checkpoints(run.run_dir)] == ["step-000003"]
    [end] = run.records("end")
    assert (end["step"], end["reason"]) == (3, "stopped")
    assert run.records("train")[-1]["step"] == 3


def test_a_stop_asked_of_another_rank_ends_this_one_too(run: Run) -> None:
    run.engine.mean = lambda values: [values[0], values[1], 0.125] if len(values) == 3 else values
    assert run.train() == "stopped"
    assert run.engine.steps == 1


def test_a_stop_at_the_last_step_is_a_finish(run: Run) -> None:
    run.stop_after(8)
    assert run.train() == "finished"


def test_a_resumed_run_sees_the_data_and_rates_it_would_have_seen(
    run: Run, corpus_dir: Path, tmp_path_factory: pytest.TempPathFactory, make_engine: Any
) -> None:
    run.stop_after(3)
    run.train()
    whole = Run(tmp_path_factory.mktemp("whole"), corpus_dir, run.config, make_engine(run.config))
    whole.train()
    again = Run(run.run_dir, corpus_dir, run.config, make_engine(run.config))
    assert again.train() == "finished"
    assert again.said[0] == "going on from the checkpoint of step 3"
    assert again.engine.rates == whole.engine.rates[3:]
    for batch, wanted in zip(again.engine.batches, whole.engine.batches[3:], strict=True):
        assert torch.equal(batch, wanted)
    assert [record["reason"] for record in run.records("end")] == ["stopped", "finished"]


def test_a_finished_run_resumed_takes_no_step(run: Run, corpus_dir: Path, make_engine: Any) -> None:
    run.train()
    again = Run(run.run_dir, corpus_dir, run.config, make_engine(run.config))
    assert again.train() == "finished"
    assert again.engine.batches == []


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_fails_the_run_and_keeps_the_checkpoint_before(run: Run, loss: float) -> None:
    run.engine.losses[6] = loss
    with pytest.raises(TrainingFailed, match=f"the loss is {loss} at step 6") as caught:
        run.train()
    assert "optim.lr_peak" in caught.value.next_step
    assert [path.name for path in whole_checkpoints(run.run_dir)] == ["step-000004"]
    [end] = run.records("end")
    assert end["reason"] == "failed"
    assert "at step 6" in end["message"]


def test_a_gradient_that_is_no_number_is_not_saved(run: Run) -> None:
    run.engine.grad_norms[8] = math.inf
    with pytest.raises(TrainingFailed, match="gradient norm is inf at step 8"):
        run.train()
    assert [path.name for path in whole_checkpoints(run.run_dir)] == ["step-000004"]


def test_an_engine_that_tells_no_norm_leaves_it_out(run: Run) -> None:
    run.engine.grad_norms = dict.fromkeys(range(1, 9))
    assert run.train() == "finished"
    assert {record["grad_norm"] for record in run.records("train")} == {None}


def test_a_full_disk_fails_the_run_with_an_end_record(run: Run) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    run.engine.save = full
    with pytest.raises(TrainingFailed, match="No space left") as caught:
        run.train()
    assert "train resume" in caught.value.next_step
    assert run.records("end")[-1]["reason"] == "failed"


def test_a_disk_too_full_for_a_record_still_tells_why(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: MetricsWriter, kind: str, step: int, **values: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MetricsWriter, "write", full)
    with pytest.raises(TrainingFailed, match="is full"):
        run.train()


def test_a_corpus_too_small_to_evaluate_fails_before_the_first_step(run: Run) -> None:
    model = replace(run.config.model, context_tokens=100_000)
    run.config = replace(run.config, model=model)
    with pytest.raises(CorpusInvalid):
        run.train()
    assert run.engine.batches == []
    assert run.records("end")[-1]["reason"] == "failed"


def test_a_checkpoint_of_another_world_fails_with_an_end_record(run: Run, corpus_dir: Path, make_engine: Any) -> None:
    run.stop_after(3)
    run.train()
    wider = Run(run.run_dir, corpus_dir, run.config, make_engine(run.config, world_size=2))
    with pytest.raises(CheckpointInvalid, match="this run has 2"):
        wider.train()
    assert run.records("end")[-1]["reason"] == "failed"
