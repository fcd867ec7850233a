"""The whole model: shapes, causality, one seed one model, a start near ln(vocabulary), and that it learns."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kanctl.trainer.config import load_recipe
from kanctl.trainer.model import END_OF_DOCUMENT, KanLM, next_token_loss
from kanctl.trainer.model_config import ModelConfig

CONFIG = ModelConfig(layers=2, width=24, heads=2, context_tokens=19, hidden=20)
FORMS = pytest.mark.parametrize("form", ["dense", "cell"])


def tokens(batch: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(0, 257, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("length", [1, 7, 19])
def test_logits_have_one_row_per_token_and_one_column_per_symbol(length: int) -> None:
    assert KanLM(CONFIG, seed=0)(tokens(3, length)).shape == (3, length, 257)


def test_more_tokens_than_the_context_are_refused() -> None:
    with pytest.raises(ValueError, match="wanted at most 19 tokens, found 20"):
        KanLM(CONFIG, seed=0)(tokens(1, 20))


@FORMS
def test_a_token_changes_no_logits_before_it(form) -> None:
    model = KanLM(replace(CONFIG, edge_form=form), seed=0).double()
    text = tokens(2, 13)
    before = model(text)
    for place in (0, 6, 12):
        changed = text.clone()
        changed[:, place] = (changed[:, place] + 1) % 257
        after = model(changed)
        assert torch.equal(after[:, :place], before[:, :place])
        assert not torch.equal(after[:, place], before[:, place])


def test_each_token_sees_all_earlier_ones() -> None:
    model = KanLM(CONFIG, seed=0).double()
    embedded = model.embedding(tokens(1, 9)).detach().requires_grad_()
    model.embedding.register_forward_hook(lambda *_: embedded)
    (slope,) = torch.autograd.grad(model(tokens(1, 9))[0, -1].square().sum(), embedded)
    assert (slope[0].norm(dim=-1) > 0).all()


def test_a_document_does_not_see_the_one_before_it() -> None:
    model = KanLM(CONFIG, seed=0).double()
    first, other, second = tokens(2, 8, seed=3) % 256, tokens(2, 8, seed=4) % 256, tokens(2, 10, seed=5) % 256
    first[:, -1] = other[:, -1] = END_OF_DOCUMENT
    logits = [model(torch.cat([before, second], 1)) for before in (first, other)]
    assert torch.equal(logits[0][:, 8:], logits[1][:, 8:])
    torch.testing.assert_close(logits[0][:, 8:], model(second), rtol=0, atol=1e-12)


def test_one_seed_makes_one_model_bit_for_bit_and_another_seed_another() -> None:
    torch.manual_seed(123)
    first = KanLM(CONFIG, seed=7).state_dict()
    torch.manual_seed(456)
    again, other = KanLM(CONFIG, seed=7).state_dict(), KanLM(CONFIG, seed=8).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


def test_making_a_model_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    KanLM(CONFIG, seed=7)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, width=256, heads=4), load_recipe("tiny").model])
def test_the_loss_starts_close_to_that_of_a_uniform_guess(config: ModelConfig) -> None:
    model = KanLM(config, seed=0)
    text = tokens(4, 20)[:, : config.context_tokens + 1]
    loss = next_token_loss(model(text[:, :-1]), text[:, 1:]).item()
    assert abs(loss - math.log(257)) < 0.25


def test_both_edge_forms_are_the_same_model() -> None:
    text = tokens(2, 19)
    losses, slopes = [], []
    for form in ("dense", "cell"):
        model = KanLM(replace(CONFIG, edge_form=form), seed=0).double()
        loss = next_token_loss(model(text[:, :-1]), text[:, 1:])
        loss.backward()
        losses.append(loss)
        slopes.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=0)
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-9, atol=1e-12)


@FORMS
def test_the_model_learns_a_small_batch_by_heart(form) -> None:
    torch.set_num_threads(1)
    model = KanLM(replace(CONFIG, edge_form=form), seed=0)
    text = tokens(4, 18)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = next_token_loss(model(text[:, :-1]), text[:, 1:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.2


@FORMS
def test_the_model_runs_in_bfloat16_without_autocast_and_stays_near_float32(form) -> None:
    model = KanLM(replace(CONFIG, edge_form=form), seed=0)
    text = tokens(2, 19)
    exact = next_token_loss(model(text[:, :-1]), text[:, 1:])
    narrow = model.bfloat16()
    logits = narrow(text[:, :-1])
    loss = next_token_loss(logits, text[:, 1:])
    loss.backward()
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    assert abs(loss.item() - exact.item()) < 0.02
    assert all(weight.grad.isfinite().all() and weight.grad.dtype == torch.bfloat16 for weight in narrow.parameters())


def test_all_weights_are_saved_and_loaded() -> None:
    model, other = KanLM(CONFIG, seed=0), KanLM(CONFIG, seed=1)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(tokens(1, 5)), model(tokens(1, 5)))
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}


def test_the_loss_is_the_mean_of_negative_log_shares_in_nats() -> None:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    targets = torch.tensor([[0, 4, 2], [1, 1, 3]])
    expected = -logits.log_softmax(-1).gather(-1, targets[..., None]).mean()
    torch.testing.assert_close(next_token_loss(logits, targets), expected)
    assert next_token_loss(logits.bfloat16(), targets).dtype == torch.float32
