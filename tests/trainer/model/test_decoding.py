"""Prefill and steps give the logits of the whole forward pass, for every pattern of mixers and every kind of stream."""

from dataclasses import replace

import pytest
import torch

from kanctl.trainer.model import END_OF_DOCUMENT, KanLM
from kanctl.trainer.model.decoding import prefill, step
from kanctl.trainer.model_config import AdaConfig, GroveConfig, ModelConfig, MultiresConfig

CONFIG = ModelConfig(
    layers=2, width=24, heads=2, context_tokens=64, hidden=20,
    multires=MultiresConfig(window=5, levels=(4,)), ada=AdaConfig(chunk=7), grove=GroveConfig(experts=4),
)  # fmt: skip
PATTERNS = {
    "softmax": replace(CONFIG, mixers=("softmax",)),
    "default": replace(CONFIG, layers=4),
    "all": replace(CONFIG, layers=4, mixers=("ada", "kalman", "multires", "softmax"), knowledge=True, qk_norm=True),
    "data decay": replace(CONFIG, mixers=("ada",), ada=AdaConfig(decay="data", window=1)),
    "gpt": replace(CONFIG, mixers=("softmax",), channel="mlp"),
    "grove": replace(CONFIG, channel="grove"),
    "grove-kan": replace(CONFIG, channel="grove-kan", mixers=("kalman",)),
    "factors": replace(CONFIG, factor_rank=5),
    "cyclic": replace(CONFIG, group_order=4),
    "reversible": replace(CONFIG, layers=3, reversible=True, mixers=("ada", "softmax", "multires")),
    "joined": replace(CONFIG, mixers=("softmax",), isolate_documents=False, knowledge=True),
}
EACH = pytest.mark.parametrize("name", PATTERNS)


def model(name: str, dtype: torch.dtype = torch.float64) -> KanLM:
    """A model whose weights have all left their start, among them those that start at zero."""
    made = KanLM(PATTERNS[name], seed=0).to(dtype).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(dtype), alpha=0.05)
    return made


def texts() -> torch.Tensor:
    """Three rows: a document that ends early, one that ends late, and one after padding."""
    tokens_BT = torch.randint(0, 256, (3, 40), generator=torch.Generator().manual_seed(1))
    tokens_BT[0, 9] = tokens_BT[1, 30] = END_OF_DOCUMENT
    tokens_BT[2, :3] = END_OF_DOCUMENT
    return tokens_BT


@EACH
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=str)
@pytest.mark.parametrize("prefilled", [1, 20])
def test_steps_give_the_logits_of_the_whole_pass(name, dtype, tolerance, prefilled) -> None:
    made, tokens_BT = model(name, dtype), texts()
    with torch.no_grad():
        whole = made(tokens_BT)
    logits, state = prefill(made, tokens_BT[:, :prefilled])
    for t in range(prefilled, 40):
        torch.testing.assert_close(logits, whole[:, t - 1], rtol=0, atol=tolerance)
        logits, state = step(made, tokens_BT[:, t], state)
    torch.testing.assert_close(logits, whole[:, -1], rtol=0, atol=tolerance)


@EACH
def test_a_token_changes_no_logits_before_it_or_in_another_document(name: str) -> None:
    made, tokens_BT = model(name), texts()
    before = made(tokens_BT)
    changed = tokens_BT.clone()
    changed[0, 5] += 1
    after = made(changed)
    # A product over another number of rows may sum in another order: equal to rounding where experts share rows out.
    tolerance = 1e-12 if "grove" in name else 0.0
    torch.testing.assert_close(after[0, :5], before[0, :5], rtol=0, atol=tolerance)
    if PATTERNS[name].isolate_documents:
        torch.testing.assert_close(after[0, 10:], before[0, 10:], rtol=0, atol=tolerance)
    assert not torch.equal(after[0, 5], before[0, 5])
