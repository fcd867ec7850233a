"""`python -m kanctl.trainer.evaluate`: bits per byte of a run's model on the validation text, beside two baselines.

Bits per byte: the summed loss of every predicted token, end-of-document marks too, over the number of bytes; the marks
are paid for and count as no text. Baselines on the same bytes: xz, and bytes drawn by their frequency alone.
"""

import argparse
import json
import lzma
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from kanctl.errors import KanctlError

from .errors import CorpusInvalid

# Windows evaluated at once.
BATCH = 16


def evaluate_run(run_dir: Path, corpus_dir: Path | None, checkpoint: str, max_bytes: int | None) -> dict[str, object]:
    """The documented object of `kanctl train evaluate --json`. Raises CheckpointInvalid and CorpusInvalid."""
    import torch

    from .checkpoint import checkpoint_step, load_model
    from .data.loader import Corpus
    from .model import END_OF_DOCUMENT, next_token_loss

    start_s = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, config = load_model(run_dir, checkpoint, device=device)
    folder = corpus_dir or run_dir.resolve().parent.parent / "corpora" / config.data.corpus
    most = None if max_bytes is None else max(1, max_bytes // config.model.context_tokens)
    windows = Corpus(folder).validation_windows(config.model.context_tokens, most)
    total_nats = 0.0
    with torch.inference_mode():
        for batch in windows.split(BATCH):  # type: ignore[no-untyped-call]
            tokens_BT = batch.to(device)
            loss = next_token_loss(model(tokens_BT[:, :-1]), tokens_BT[:, 1:])
            total_nats += loss.item() * (tokens_BT.numel() - len(tokens_BT))
    targets = windows[:, 1:].flatten()
    text = targets[targets != END_OF_DOCUMENT].to(torch.uint8).numpy().tobytes()
    if not text:
        raise CorpusInvalid(f"{folder}: the validation text has no bytes", "kanctl train prepare --replace")
    return {
        "run": run_dir.resolve().name,
        "checkpoint_step": checkpoint_step(run_dir, checkpoint),
        "val_bytes": len(text),
        "val_bits_per_byte": round(total_nats / math.log(2) / len(text), 4),
        "baseline_xz_bits_per_byte": round(8 * len(lzma.compress(text)) / len(text), 4),
        "baseline_byte_frequency_bits_per_byte": round(byte_entropy(text), 4),
        "device": device,
        "seconds": round(time.monotonic() - start_s, 1),
    }


def byte_entropy(text: bytes) -> float:
    """Bits per byte of a code that knows only how frequent each byte is."""
    counts = [count for count in (text.count(byte) for byte in range(256)) if count]
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)


def main(words: Sequence[str] | None = None) -> int:
    """Read the arguments, evaluate, return the exit code (kanctl/errors.py)."""
    parser = argparse.ArgumentParser(prog="python -m kanctl.trainer.evaluate", allow_abbrev=False)
    parser.add_argument("--run-dir", type=Path, required=True, help="folder of the run")
    parser.add_argument("--corpus", type=Path, help="folder of the corpus; default: the run's own")
    parser.add_argument("--checkpoint", default="last", help="last, or the step of a checkpoint")
    parser.add_argument("--max-bytes", type=int, help="evaluate on the first so many bytes at most")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(words)
    try:
        result = evaluate_run(options.run_dir, options.corpus, options.checkpoint, options.max_bytes)
    except KanctlError as error:
        print(f"{error}\n  next: {error.next_step}" if error.next_step else str(error), file=sys.stderr)
        return error.exit_code
    print(json.dumps(result, indent=2) if options.json else "\n".join(f"{k}: {v}" for k, v in result.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
