"""An interpolated byte n-gram model, the baseline that a language model has to beat.

Orders 0 to 5 with Witten-Bell smoothing: p_k(b|c) = (count(c b) + kinds(c) p_{k-1}(b|c')) / (count(c) + kinds(c)),
where kinds(c) counts the different symbols seen after c. Source: Witten and Bell 1991, doi 10.1109/18.87000.
"""

from dataclasses import dataclass

import numpy as np

ORDER = 5
# A symbol, byte or end-of-document mark, takes nine bits: six of them fit into an int64.
SYMBOLS = 257
BITS = 9
# More text than this makes the table better by little, and takes minutes to sort.
MOST_TOKENS = 4_000_000


@dataclass(frozen=True, slots=True)
class _Table:
    """What followed each context of one length; both key arrays are sorted."""

    contexts: np.ndarray
    totals: np.ndarray
    kinds: np.ndarray
    likeliest: np.ndarray
    """The symbol that followed most often, the lowest of equals."""
    pairs: np.ndarray
    """Context and symbol in one key."""
    counts: np.ndarray


class Ngram:
    """Counts of a text's n-grams; the contexts run across documents' borders, whose marks they hold.

    Args:
        tokens: the training text, symbols below 257; the first MOST_TOKENS of it are read.
    """

    def __init__(self, tokens: np.ndarray) -> None:
        orders = min(ORDER + 1, len(tokens)) if len(tokens) > 1 else 0
        self._tables = [_count(tokens[:MOST_TOKENS], order) for order in range(orders)]

    def score(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each symbol after the first: its cost in nats, float64, and the symbol taken as likeliest before it.

        The likeliest is the most frequent continuation of the longest context that was seen.
        """
        targets = tokens[1:].astype(np.int64)
        shares = np.full(len(targets), 1 / SYMBOLS)
        guesses = np.zeros(len(targets), np.int64)
        for order, table in enumerate(self._tables):
            contexts = _contexts(tokens, order)
            places, is_seen = _find(table.contexts, contexts)
            pair_places, is_pair = _find(table.pairs, (contexts << BITS) | targets)
            # The first symbols have no context of this length.
            is_seen &= np.arange(len(targets)) + 1 >= order
            totals, kinds = table.totals[places], table.kinds[places]
            counts = np.where(is_pair, table.counts[pair_places], 0)
            shares = np.where(is_seen, (counts + kinds * shares) / (totals + kinds), shares)
            guesses = np.where(is_seen, table.likeliest[places], guesses)
        return -np.log(shares), guesses


def _contexts(tokens: np.ndarray, order: int) -> np.ndarray:
    """The `order` symbols before each symbol after the first, in one number; zeros stand before the text."""
    wide = np.concatenate([np.zeros(order, np.int64), tokens.astype(np.int64)])
    keys = np.zeros(len(tokens) - 1, np.int64)
    for back in range(order, 0, -1):
        begin = order + 1 - back
        keys = (keys << BITS) | wide[begin : begin + len(keys)]
    return keys


def _count(tokens: np.ndarray, order: int) -> _Table:
    contexts = _contexts(tokens, order)[max(0, order - 1) :]
    targets = tokens[1:].astype(np.int64)[max(0, order - 1) :]
    pairs, counts = np.unique((contexts << BITS) | targets, return_counts=True)
    contexts, first, kinds = np.unique(pairs >> BITS, return_index=True, return_counts=True)
    totals = np.add.reduceat(counts, first) if len(first) else counts
    return _Table(contexts, totals, kinds, _likeliest(pairs, counts, first), pairs, counts)


def _likeliest(pairs: np.ndarray, counts: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Of each context the symbol with the highest count; pairs of one context stand together from `first` on."""
    owner = np.repeat(np.arange(len(first)), np.diff([*first, len(pairs)]))
    # Within a context by falling count, and by symbol, as the pairs stand.
    order = np.lexsort((-counts, owner))
    likeliest: np.ndarray = (pairs[order] & ((1 << BITS) - 1))[first]
    return likeliest


def _find(sorted_keys: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each key stands, and whether it is there; a place is valid in any case."""
    places = np.searchsorted(sorted_keys, keys).clip(max=max(0, len(sorted_keys) - 1))
    return places, sorted_keys[places] == keys
