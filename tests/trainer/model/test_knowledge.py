"""The knowledge bias by itself: the sum of its features' embeddings, start values, bad arguments."""

import pytest
import torch

from kanctl.trainer.model.knowledge import KnowledgeBias
from kanctl.trainer.model.lexer_rules import FEATURE_SIZES

SIZES = (4, 3, 6)


def bias(**given) -> KnowledgeBias:
    made = KnowledgeBias(2, rank=5, width=64, **given)
    made.start(torch.Generator().manual_seed(1))
    return made


def test_each_feature_has_rows_of_its_own_and_they_are_summed() -> None:
    made = bias(sizes=SIZES).double()
    made.to_key.weight.data.normal_(generator=torch.Generator().manual_seed(2))
    for features in ([0, 0, 0], [3, 2, 5], [1, 0, 4]):
        rows = made.embedding.weight[[features[0], 4 + features[1], 7 + features[2]]].sum(0)
        for factor, linear in zip(made(torch.tensor([[features]])), (made.to_query, made.to_key), strict=True):
            assert factor.shape == (1, 2, 1, 5)
            torch.testing.assert_close(factor.flatten(), linear(rows), rtol=0, atol=1e-12)


def test_the_start_gives_queries_a_variance_of_one_and_keys_nothing() -> None:
    made = bias()
    generator = torch.Generator().manual_seed(3)
    features = torch.stack([torch.randint(0, size, (4, 200), generator=generator) for size in FEATURE_SIZES], -1)
    query, key = made(features)
    assert 0.8 < query.std().item() < 1.2
    assert not key.any()


def test_the_bias_can_leave_its_start() -> None:
    """P_q is not zero, so P_k receives a gradient; were both zero, neither would."""
    made = bias()
    query, key = made(torch.zeros(1, 3, len(FEATURE_SIZES), dtype=torch.int64))
    (query @ key.transpose(-1, -2)).sum().backward()
    assert made.to_key.weight.grad.abs().max() > 0


@pytest.mark.parametrize("given", [{"rank": 0}, {"width": 0}, {"sizes": ()}, {"sizes": (3, 0)}])
def test_sizes_that_mean_nothing_are_refused(given) -> None:
    with pytest.raises(ValueError, match="wanted positive sizes"):
        KnowledgeBias(2, **given)


def test_another_number_of_features_is_refused() -> None:
    with pytest.raises(ValueError, match="wanted 3 features, found 2"):
        bias(sizes=SIZES)(torch.zeros(1, 1, 2, dtype=torch.int64))
