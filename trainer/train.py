"""`python -m kanctl.trainer.train`: one rank of a run, under torchrun or by itself.

Reads the run folder's config.json, trains, and leaves metrics, versions and checkpoints there. SIGTERM ends the run
after a checkpoint. This is the edge: environment, signals and files are read here and passed down.
"""

import argparse
import json
import os
import platform
import socket
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from kanctl import __version__
from kanctl.errors import KanctlError

from .config import RunConfig, from_dict
from .errors import TrainingFailed
from .stop import StopRequest

PACKAGES = ("torch", "deepspeed", "numpy", "safetensors")


def train_run(run_dir: Path, corpus_dir: Path, stop: StopRequest) -> str:
    """Train the run of a folder; gives `finished` or `stopped`. Raises KanctlError."""
    # Here, so that wrong arguments are answered without loading torch.
    from .data.loader import Corpus
    from .engine import DeepSpeedEngine
    from .loop import Training, train
    from .metrics import MetricsWriter

    config = read_config(run_dir)
    corpus = Corpus(corpus_dir)
    _fill_environment()
    engine = DeepSpeedEngine(config)
    metrics = MetricsWriter(run_dir, enabled=engine.rank == 0)

    def say(line: str) -> None:
        if engine.rank == 0:
            print(line, flush=True)

    if engine.rank == 0:
        versions = {**_versions(), "world_size": engine.world_size}
        (run_dir / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")
    try:
        reason = train(
            Training(engine=engine, corpus=corpus, config=config, run_dir=run_dir, metrics=metrics, stop=stop, say=say)
        )
    finally:
        metrics.close()
    # Not after a failure: the other ranks may be in the middle of a collective, and end when this process does.
    engine.close()
    return reason


def read_config(run_dir: Path) -> RunConfig:
    """The run's resolved config. Raises RecipeInvalid and TrainingFailed."""
    path = run_dir / "config.json"
    try:
        return from_dict(json.loads(path.read_text()), source=str(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TrainingFailed(f"{run_dir} is no run folder: config.json is missing", "kanctl train launch") from error
    except ValueError as error:
        raise TrainingFailed(f"{path} is damaged: {error}", "kanctl train launch") from error


def _fill_environment() -> None:
    """Without torchrun: a world of one."""
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    for key, value in alone.items():
        os.environ.setdefault(key, value)
    if "MASTER_PORT" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            os.environ["MASTER_PORT"] = str(probe.getsockname()[1])


def _versions() -> dict[str, object]:
    """What made the run: enough to make it again."""
    import torch

    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "kanctl": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
        "gpus": devices,
        "host": platform.node(),
        "kernel": platform.release(),
    }


def main(words: Sequence[str] | None = None) -> int:
    """Read the arguments, train, return the exit code (kanctl/errors.py)."""
    parser = argparse.ArgumentParser(prog="python -m kanctl.trainer.train", allow_abbrev=False)
    parser.add_argument("--run-dir", type=Path, required=True, help="folder with config.json")
    parser.add_argument("--corpus", type=Path, help="folder of the corpus; default: the one config.json names")
    options = parser.parse_args(words)
    stop = StopRequest()
    stop.on_signals()
    try:
        corpus = options.corpus
        if corpus is None:
            name = read_config(options.run_dir).data.corpus
            corpus = options.run_dir.resolve().parent.parent / "corpora" / name
        train_run(options.run_dir, corpus, stop)
    except KanctlError as error:
        print(f"{error}\n  next: {error.next_step}" if error.next_step else str(error), file=sys.stderr)
        return error.exit_code
    return 0


def end_process(code: int) -> NoReturn:
    """End here, with everything printed, and without taking the interpreter apart.

    A thread of gloo's gives up its last tensors some time after the collective. Where that needs the interpreter's lock
    while the interpreter is being taken apart, the process aborts: a run that went well would end with signal 6.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    end_process(main())
