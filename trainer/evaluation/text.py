"""The task `text`: bits per byte and perplexities on the validation text, beside xz, byte frequencies and n-grams.

Bits per byte: the summed cost of every predicted token, end-of-document marks too, over the number of bytes; the marks
are paid for and count as no text.
"""

import lzma
import math

from .measures import Measure
from .subject import Subject

TASK = "text"
MODEL = "model"


def text_measures(subject: Subject) -> list[Measure]:
    """Bits per byte, perplexity per token, and perplexity per word (what white space parts)."""
    text, tokens = subject.text, len(subject.targets)
    words = len(text.split())
    # In bits of the whole text.
    costs = {
        MODEL: float(subject.predictions.nats.sum()) / math.log(2),
        "n-grams": float(subject.baseline.nats.sum()) / math.log(2),
        "xz": 8.0 * len(lzma.compress(text)),
        "byte frequency": byte_entropy(text) * len(text),
    }
    measures = [
        _measure("bits per byte", "bits/byte", len(text), {name: bits / len(text) for name, bits in costs.items()})
    ]
    for what, count in (("token", tokens), ("word", words)):
        if count:
            values = {name: two_to(bits / count) for name, bits in costs.items()}
            measures.append(_measure(f"perplexity per {what}", f"choices/{what}", count, values))
    return measures


def _measure(name: str, unit: str, count: int, values: dict[str, float]) -> Measure:
    """One row: the model's value, and those of all others as its baselines."""
    baselines = {other: value for other, value in values.items() if other != MODEL}
    return Measure(task=TASK, name=name, value=values[MODEL], unit=unit, count=count, baselines=baselines)


def byte_entropy(text: bytes) -> float:
    """Bits per byte of a code that knows only how frequent each byte is."""
    counts = [count for count in (text.count(byte) for byte in range(256)) if count]
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)


def two_to(bits: float) -> float:
    """2 to the power of so many bits; infinity beyond what a double holds."""
    return 2.0**bits if bits < 1024 else math.inf
