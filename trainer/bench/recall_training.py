"""One training of a model on associative recall, by the loss of the answers alone. Letters: B sequences, T tokens."""

import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import OptimConfig
from ..model_config import ModelConfig
from ..schedule import learning_rate
from .training import Outcome, Trainee, make_step


class RecallTrainee(Trainee):
    """Learns nothing from tokens that cannot be known."""

    is_answer_T: Tensor

    def loss_of(self, tokens_BT: Tensor) -> Tensor:
        """The mean loss of the answers."""
        logits_BQV = self.model(tokens_BT[:, :-1])[:, self.is_answer_T]
        return F.cross_entropy(logits_BQV.float().flatten(0, 1), tokens_BT[:, 1:][:, self.is_answer_T].flatten())


def train_recall(
    config: ModelConfig,
    optim: OptimConfig,
    batches: Sequence[Tensor],
    tests: Sequence[Tensor],
    is_answer_T: Tensor,
    steps: int,
    seed: int,
) -> dict[str, Any]:
    """Train on the batches (B, T + 1), over and over; the share of the tests' answers that are the likeliest byte."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    trainee = RecallTrainee(config, optim, seed, device)
    # Indices, not a mask: a mask's count would have to wait for the device.
    trainee.is_answer_T = is_answer_T.nonzero().flatten().to(device)
    run = make_step(trainee, batches[0].to(device), Outcome())
    began_s = time.perf_counter()
    for step in range(1, steps + 1):
        trainee.optimiser.set_rate(learning_rate(step, steps, optim))
        run(batches[(step - 1) % len(batches)].to(device))
        trainee.optimiser.advance()
    accuracy = _accuracy(trainee, tests, device)
    return {"accuracy": round(accuracy, 4), "seconds": round(time.perf_counter() - began_s, 1)}


@torch.no_grad()
def _accuracy(trainee: RecallTrainee, tests: Sequence[Tensor], device: torch.device) -> float:
    trainee.model.eval()
    right = count = 0
    for tokens_BT in (test.to(device) for test in tests):
        guesses_BQ = trainee.model(tokens_BT[:, :-1])[:, trainee.is_answer_T].argmax(-1)
        is_right_BQ = guesses_BQ == tokens_BT[:, 1:][:, trainee.is_answer_T]
        right += int(is_right_BQ.sum())
        count += is_right_BQ.numel()
    return right / count
