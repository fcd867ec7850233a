"""One fine-tuning from files to figures: the tuned model beside all that could be had without the run's training."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import checkpoint_step, load_model
from ..config import RunConfig, to_dict
from ..errors import TrainingFailed
from ..model import KanLM
from .baselines import majority_accuracy, ngram_accuracy
from .batches import encode
from .classifier import FINETUNES, Classifier, begin_folder, save_classifier
from .rows import Columns, Row, Sets, read_sets
from .tune import TuneConfig, predict, tune

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is asked: a run, two files, and how to tune."""

    run_dir: Path
    train: Path
    validation: Path
    name: str
    """Of the folder below <run>/finetunes that the tuned model goes to."""
    checkpoint: str = "last"
    columns: Columns = field(default_factory=Columns)
    tuning: TuneConfig = field(default_factory=TuneConfig)
    most_rows: int | None = None
    """At most so many rows of each file, drawn with the seed."""
    fresh_baseline: bool = True
    """Tune the same network from fresh weights too."""
    device: str = "cpu"


def check_job(job: Job) -> dict[str, object]:
    """What the job would work on: `finetune_run`'s object without what only training tells. Writes nothing."""
    model, config = load_model(job.run_dir, job.checkpoint)
    del model
    sets = read_sets(job.train, job.validation, job.columns).limited(job.most_rows, job.tuning.seed)
    return _description(job, sets, config)


def finetune_run(job: Job, progress: Progress) -> dict[str, object]:
    """Tune, measure, keep the tuned model; gives the documented object of `kanctl train finetune --json`.

    The run's checkpoints are only read. Raises RowsInvalid, BadInputError, CheckpointInvalid, TrainingFailed.
    """
    start_s = time.monotonic()
    sets = read_sets(job.train, job.validation, job.columns).limited(job.most_rows, job.tuning.seed)
    model, config = load_model(job.run_dir, job.checkpoint, device=job.device)
    partial = begin_folder(job.run_dir, job.name)
    try:
        described = _description(job, sets, config)
        tuned = Classifier(model, len(sets.classes), job.tuning.pooling, frozen=job.tuning.frozen)
        reached = _accuracy(tuned, sets, config, job, lambda line: progress(f"tuned: {line}"))
        measure = _measure(reached, len(sets.validation), _baselines(job, sets, config, progress))
        result = {**described, "seconds": round(time.monotonic() - start_s, 1), "measures": [measure]}
        meta = {**result, "labels": list(sets.classes), "config": to_dict(config), "tuning": asdict(job.tuning)}
        save_classifier(tuned, partial, meta)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return result


def _description(job: Job, sets: Sets, config: RunConfig) -> dict[str, object]:
    most = config.model.context_tokens - 1
    return {
        "run": job.run_dir.resolve().name,
        "checkpoint_step": checkpoint_step(job.run_dir, job.checkpoint),
        "finetune": f"{FINETUNES}/{job.name}",
        "train_count": len(sets.train),
        "validation_count": len(sets.validation),
        "validation_seen_count": sets.seen(),
        "cut_count": sum(len(row.text) > most for row in (*sets.train, *sets.validation)),
        "text_bytes_max": most,
        "classes": sets.counts(),
        "steps": job.tuning.steps_for(len(sets.train)),
        "device": job.device,
    }


def _baselines(job: Job, sets: Sets, config: RunConfig, progress: Progress) -> dict[str, float]:
    """Accuracies by name, the weakest kind first."""
    train_N, validation_N = (_numbers(sets, rows) for rows in (sets.train, sets.validation))
    progress("baselines: the commonest class, logistic regression on n-grams")
    texts = [[row.text for row in rows] for rows in (sets.train, sets.validation)]
    ngram = ngram_accuracy(texts[0], train_N, texts[1], validation_N, seed=job.tuning.seed)
    found = {"commonest class": majority_accuracy(train_N, validation_N), "n-gram regression": ngram}
    if job.fresh_baseline:
        fresh = KanLM(config.model, seed=job.tuning.seed).to(job.device)
        classifier = Classifier(fresh, len(sets.classes), job.tuning.pooling, frozen=job.tuning.frozen)
        reached = _accuracy(classifier, sets, config, job, lambda line: progress(f"from fresh weights: {line}"))
        found["fresh weights, tuned alike"] = reached
    return found


def _accuracy(classifier: Classifier, sets: Sets, config: RunConfig, job: Job, progress: Progress) -> float:
    """Tune in place; the share of validation rows that are then sorted right."""
    context = config.model.context_tokens
    classifier.to(job.device)
    try:
        texts = [encode(row.text, context) for row in sets.train]
        tune(classifier, texts, _numbers(sets, sets.train), job.tuning, progress)
        found_N = predict(classifier, [encode(row.text, context) for row in sets.validation])
    except torch.OutOfMemoryError as error:
        raise TrainingFailed(
            f"{job.tuning.batch} texts do not fit into {job.device}: {error}", "--batch less"
        ) from error
    accuracy = float((found_N == _numbers(sets, sets.validation)).double().mean())
    progress(f"{accuracy:.4f} of {len(sets.validation)} validation rows right")
    return accuracy


def _numbers(sets: Sets, rows: Sequence[Row]) -> Tensor:
    numbers = {label: number for number, label in enumerate(sets.classes)}
    return torch.tensor([numbers[row.label] for row in rows])


def _measure(value: float, count: int, baselines: Mapping[str, float]) -> dict[str, object]:
    return {
        "task": "finetune",
        "name": "accuracy",
        "value": round(value, 4),
        "unit": "share of rows",
        "standard_error": round((value * (1 - value) / count) ** 0.5, 4),
        "count": count,
        "baselines": {name: round(baseline, 4) for name, baseline in baselines.items()},
    }
