"""One short training on one device, timed: bfloat16 weights with float32 copies, as an engine would train them.

On a GPU the whole step is one CUDA graph where the model allows it, so that small models are measured and not
the launching of their kernels. Letters: B sequences, T tokens.
"""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from ..config import OptimConfig
from ..data.corpus import find_files, read_documents, standard_library
from ..model import KanLM, next_token_loss
from ..model.grove import Grove
from ..model_config import ModelConfig
from ..optim import make_optimiser
from ..schedule import learning_rate

WARM_UP_STEPS = 3
# At the text's end.
VALIDATION_SHARE = 0.1
# A model of these sizes sees 33 MB of text in 2,000 steps.
LIBRARY_BYTES = 4_000_000
# Evaluations would take a CPU longer than the training.
CPU_LIBRARY_BYTES = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchText:
    """Bytes of training and validation text on the device, int64."""

    train: Tensor
    val: Tensor

    def batch(self, sequences: int, context_tokens: int, generator: torch.Generator) -> Tensor:
        """Random windows of the training text, (B, T + 1)."""
        starts = torch.randint(len(self.train) - context_tokens, (sequences, 1), generator=generator)
        index_BT = (starts + torch.arange(context_tokens + 1)).to(self.train.device)
        return self.train[index_BT]


def read_text(path: Path | None) -> BenchText:
    """A text file on the GPU, or on the CPU where there is none; without a path the beginning of Python's library."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    limit = LIBRARY_BYTES if device.type == "cuda" else CPU_LIBRARY_BYTES
    text = library_text(limit) if path is None else path.read_bytes()
    tokens = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(device, torch.int64)
    cut = int(len(tokens) * (1 - VALIDATION_SHARE))
    return BenchText(train=tokens[:cut], val=tokens[cut:])


def library_text(limit: int) -> bytes:
    """Whole files of the running Python's standard library, in the order of their hashes, `limit` bytes at most."""
    source = standard_library()
    documents = sorted(read_documents(source, find_files(source)), key=lambda document: document.order)
    ends = accumulate(len(document.text) for document in documents)
    return b"".join(document.text for document, end in zip(documents, ends, strict=True) if end <= limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """What all models have in common."""

    steps: int
    sequences: int
    eval_every_steps: int
    seed: int


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What one training gave."""

    evals: list[dict[str, float]] = field(default_factory=list)
    """step, seconds of training alone, val_loss_nats."""
    tokens_per_s: float = 0.0
    peak_memory_mib: float = 0.0
    is_graph: bool = False
    graph_refused: str = ""


class Trainee:
    """A model with its optimiser; a step leaves its loss in `loss`."""

    def __init__(self, config: ModelConfig, optim: OptimConfig, seed: int, device: torch.device) -> None:
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.model = KanLM(config, seed=seed).to(device=device, dtype=self.dtype).train()
        names, weights = zip(*self.model.named_parameters(), strict=True)
        self.weights: list[Tensor] = list(weights)
        self.copies = [weight.detach().float().clone().requires_grad_() for weight in self.weights]
        self.clip_norm = optim.clip_norm
        is_gpu = device.type == "cuda"
        self.optimiser = make_optimiser(
            self.model,
            optim,
            weights=dict(zip(names, self.copies, strict=True)),
            fused=is_gpu,
            capturable=is_gpu,
        )
        self.groves = [module for module in self.model.modules() if isinstance(module, Grove)]
        self.loss = torch.zeros((), device=device)

    def step(self, tokens_BT: Tensor) -> None:
        """Forward, backward, one update; optimiser.advance() follows."""
        loss = next_token_loss(self.model(tokens_BT[:, :-1]), tokens_BT[:, 1:])
        slopes = torch.autograd.grad(loss, self.weights, allow_unused=True)
        for copy, slope in zip(self.copies, slopes, strict=True):
            copy.grad = torch.zeros_like(copy) if slope is None else slope.float()
        torch.nn.utils.clip_grad_norm_(self.copies, self.clip_norm)
        self.optimiser.update()
        with torch.no_grad():
            torch._foreach_copy_(self.weights, self.copies)
        for grove in self.groves:
            grove.update_balance()
        self.loss.copy_(loss.detach())

    @torch.no_grad()
    def evaluate(self, windows: Sequence[Tensor]) -> float:
        """Mean loss in nats over windows (B, T + 1)."""
        self.model.eval()
        total, count = 0.0, 0
        for tokens_BT in windows:
            loss = next_token_loss(self.model(tokens_BT[:, :-1]), tokens_BT[:, 1:])
            total += loss.item() * len(tokens_BT)
            count += len(tokens_BT)
        self.model.train()
        return total / count


def train(
    config: ModelConfig, optim: OptimConfig, plan: BenchPlan, text: BenchText, report: Callable[[str], None]
) -> Outcome:
    """Train one model and time it; evaluations are not part of the seconds."""
    device = text.train.device
    held_bytes = _begin_memory(device)
    torch.manual_seed(plan.seed)
    trainee = Trainee(config, optim, plan.seed, device)
    generator = torch.Generator().manual_seed(plan.seed)
    tokens_BT = text.batch(plan.sequences, config.context_tokens, generator)
    outcome = Outcome()
    run = _make_step(trainee, tokens_BT, outcome)
    _wait(device)
    windows = torch.split(text.val.unfold(0, config.context_tokens + 1, config.context_tokens), 64)
    spent_s, began_s = 0.0, time.perf_counter()
    for step in range(1, plan.steps + 1):
        batch = text.batch(plan.sequences, config.context_tokens, generator)
        trainee.optimiser.set_rate(learning_rate(step, plan.steps, optim))
        run(batch)
        trainee.optimiser.advance()
        # Steps are not waited for one by one; drawing batches counts, evaluations do not.
        if step % plan.eval_every_steps == 0 or step == plan.steps:
            _wait(device)
            spent_s += time.perf_counter() - began_s
            loss = trainee.evaluate(windows)
            outcome.evals.append({"step": step, "seconds": round(spent_s, 3), "val_loss_nats": round(loss, 4)})
            report(f"step {step}/{plan.steps}  {spent_s:.1f} s  validation {loss:.4f}")
            began_s = time.perf_counter()
    outcome.tokens_per_s = round(plan.steps * plan.sequences * config.context_tokens / spent_s)
    if device.type == "cuda":
        outcome.peak_memory_mib = round((torch.cuda.max_memory_allocated(device) - held_bytes) / 2**20, 1)
    return outcome


def _make_step(trainee: Trainee, example_BT: Tensor, outcome: Outcome) -> Callable[[Tensor], None]:
    """The step as one CUDA graph, or as it is where the model waits for the device or there is none."""
    if example_BT.device.type != "cuda":
        return trainee.step
    if trainee.groves:
        outcome.graph_refused = "the dispatch to subnets counts rows on the host"
        return trainee.step
    if trainee.model.config.knowledge:
        outcome.graph_refused = "the lexer's tables come from the host"
        return trainee.step
    inputs_BT = example_BT.clone()
    # A first state for gradients and moments; at rate 0 nothing is learned from it but the moments' start.
    trainee.optimiser.set_rate(0.0)
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP_STEPS):
            trainee.step(inputs_BT)
            trainee.optimiser.advance()
    torch.cuda.current_stream().wait_stream(side)
    is_next = trainee.optimiser.is_collecting
    graphs = {}
    for is_look in (False, True) if trainee.optimiser.looks else (False,):
        trainee.optimiser.is_collecting = is_look
        graphs[is_look] = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graphs[is_look]):
            trainee.step(inputs_BT)
    trainee.optimiser.is_collecting = is_next
    outcome.is_graph = True

    def replay(tokens_BT: Tensor) -> None:
        inputs_BT.copy_(tokens_BT)
        graphs[trainee.optimiser.is_collecting].replay()

    return replay


def _begin_memory(device: torch.device) -> int:
    """Bytes that are held before a training, the text among them; peaks count from here."""
    if device.type != "cuda":
        return 0
    # Graphs of the training before end with the last reference to them.
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
