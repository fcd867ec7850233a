"""What an incremental lexer knows of the prefix of a document, as small integers per token (MODEL.md section 6).

Two implementations with equal answers: PrefixLexer reads one token after the other, as decoding does; lex_batch reads
whole batches on any device. The rules are in lexer_rules.py. Features depend on a document's earlier tokens and the
token itself only: that a name is a keyword, for one, is known when the name has ended.

Letters: B batch, T tokens, F features, S states of the text.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .lexer_rules import (
    CODE,
    FEATURE_SIZES,
    FEATURES,
    HASH_FACTOR,
    HASH_MODULUS,
    INDENT_STEP,
    KEYWORD_BYTES,
    KEYWORD_NUMBERS,
    KEYWORDS,
    KIND_OF,
    NEXT_STATE,
    NO_BYTE,
    READ,
    TEXT_OF,
    TURN_OF,
    WIDTH_OF,
    Kind,
    Token,
    Word,
)

__all__ = ["FEATURES", "FEATURE_SIZES", "PrefixLexer", "lex_batch"]

INDENTS, DEPTHS, _, _, _, NAMES, DISTANCES = FEATURE_SIZES


class PrefixLexer:
    """Reads one document, token by token. Keeps what it read of names: one number for each place in a name."""

    def __init__(self) -> None:
        self._state = CODE
        self._count = self._indent = self._depth = self._hash = 0
        self._is_leading = True
        self._spelled = b""
        self._word = Word.NONE
        self._last_place: dict[int, int] = {}

    def feed(self, token: int) -> tuple[int, ...]:
        """Read one token id and give its features, one value below FEATURE_SIZES each, in the order of FEATURES.

        Any integer will do: ids that are no byte, such as the end of a document, are tokens of no kind.
        """
        byte = token if 0 <= token < NO_BYTE else NO_BYTE
        kind = KIND_OF[byte]
        self._state, read = NEXT_STATE[kind][self._state], READ[kind][self._state]
        self._read_indent(byte, kind)
        if read == Token.OPERATOR:
            self._depth = max(self._depth + TURN_OF[byte], 0)
        self._end_word(read)
        name, distance = self._read_name(byte) if read == Token.NAME else (0, 0)
        self._count += 1
        indent = min(self._indent // INDENT_STEP, INDENTS - 1)
        depth = min(self._depth, DEPTHS - 1)
        return indent, depth, TEXT_OF[self._state], read, self._word.value, name, distance

    def _read_indent(self, byte: int, kind: int) -> None:
        if kind == Kind.NEWLINE:
            self._indent, self._is_leading = 0, True
        elif kind != Kind.SPACE:
            self._is_leading = False
        elif self._is_leading:
            self._indent += WIDTH_OF[byte]

    def _end_word(self, read: int) -> None:
        if read != Token.NAME and self._spelled:
            self._word = Word.KEYWORD if self._spelled in KEYWORDS else Word.NAME
            self._spelled, self._hash = b"", 0

    def _read_name(self, byte: int) -> tuple[int, int]:
        """The hash bucket of the name so far, from 1, and the bucket of the distance to the last such prefix."""
        # One byte more than the longest keyword is enough to know that this is none.
        self._spelled = (self._spelled + bytes([byte]))[: KEYWORD_BYTES + 1]
        self._hash = (self._hash * HASH_FACTOR + byte) % HASH_MODULUS
        distance = self._count - self._last_place.get(self._hash, self._count)
        self._last_place[self._hash] = self._count
        return 1 + self._hash % (NAMES - 1), min(distance.bit_length(), DISTANCES - 1)


def lex_batch(tokens_BT: Tensor, position_BT: Tensor) -> Tensor:
    """The features of all tokens, int64 (B, T, F), equal to those of a PrefixLexer for each document.

    Args:
        tokens_BT: int64 token ids of any value.
        position_BT: int64, places in the documents, as a Frame has them: a 0 begins a document.

    Names are told apart by a hash of 31 bits, in both implementations. Takes O(T log T) time and O(S T) memory.
    """
    if tokens_BT.shape != position_BT.shape or tokens_BT.dim() != 2:
        found = f"{tuple(tokens_BT.shape)} and {tuple(position_BT.shape)}"
        raise ValueError(f"wanted tokens and positions of one shape (B, T), found {found}")
    byte_BT = torch.where((tokens_BT >= 0) & (tokens_BT < NO_BYTE), tokens_BT, NO_BYTE)
    kind_BT = _table(KIND_OF, byte_BT)[byte_BT]
    first_BT = torch.arange(byte_BT.shape[1], device=byte_BT.device) - position_BT
    begins_BT = position_BT == 0
    before_BT, after_BT = _states(kind_BT, begins_BT)
    read_BT = _table(READ, byte_BT)[kind_BT, before_BT]
    # Enum members by their value: torch.compile takes the comparison of a tensor with a member for False.
    is_name_BT = read_BT == Token.NAME.value
    hash_BT = _name_hashes(byte_BT, is_name_BT, begins_BT)
    distance_BT = _distances(hash_BT, is_name_BT, first_BT)
    features = (
        (_indents(byte_BT, kind_BT, first_BT) // INDENT_STEP).clamp(max=INDENTS - 1),
        _depths(byte_BT, read_BT, first_BT).clamp(max=DEPTHS - 1),
        _table(TEXT_OF, byte_BT)[after_BT],
        read_BT,
        _words(byte_BT, is_name_BT, begins_BT, first_BT),
        torch.where(is_name_BT, 1 + hash_BT % (NAMES - 1), 0),
        distance_BT,
    )
    return torch.stack(features, -1)


def _table(values: Sequence[int] | Sequence[Sequence[int]], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device)


def _shifted(x_BT: Tensor, by: int, fill: int) -> Tensor:
    """x[t - by] at t, and `fill` where that is before the row."""
    by = min(by, x_BT.shape[1])
    return torch.cat([torch.full_like(x_BT[:, :by], fill), x_BT[:, : x_BT.shape[1] - by]], 1)


def _states(kind_BT: Tensor, begins_BT: Tensor) -> tuple[Tensor, Tensor]:
    """The states before and after each token.

    A token is a map of states to states. Composed with all maps before it, in log2(T) rounds of doubling reach, it
    leads from the row's start to the state after it; a document's first token maps every state to one.
    """
    map_BTS = _table(NEXT_STATE, kind_BT)[kind_BT]
    map_BTS = torch.where(begins_BT[..., None], map_BTS[..., CODE, None], map_BTS)
    reach = 1
    while reach < map_BTS.shape[1]:
        map_BTS = torch.cat([map_BTS[:, :reach], map_BTS[:, reach:].gather(2, map_BTS[:, :-reach])], 1)
        reach *= 2
    after_BT = map_BTS[..., CODE]
    return torch.where(begins_BT, CODE, _shifted(after_BT, 1, CODE)), after_BT


def _indents(byte_BT: Tensor, kind_BT: Tensor, first_BT: Tensor) -> Tensor:
    """Columns of leading white space of each token's line so far; a newline counts to the line after it."""
    index_T = torch.arange(byte_BT.shape[1], device=byte_BT.device)
    is_newline_BT = kind_BT == Kind.NEWLINE.value
    line_BT = torch.maximum(torch.where(is_newline_BT, index_T, -1).cummax(1).values, first_BT)
    solid_BT = torch.where(is_newline_BT | (kind_BT == Kind.SPACE.value), -1, index_T).cummax(1).values
    width_BT = torch.where(solid_BT < line_BT, _table(WIDTH_OF, byte_BT)[byte_BT], 0)
    return _sum_since(width_BT, line_BT)


def _sum_since(x_BT: Tensor, start_BT: Tensor) -> Tensor:
    """The sum of x from index start_t to t, both included."""
    sum_BT = x_BT.cumsum(1)
    return sum_BT - (sum_BT - x_BT).gather(1, start_BT)


def _depths(byte_BT: Tensor, read_BT: Tensor, first_BT: Tensor) -> Tensor:
    """Open brackets after each token; a closing one without an opening one is ignored.

    A sum kept from falling below 0 is the plain sum minus the least value that it had so far, where that is negative.
    """
    turn_BT = torch.where(read_BT == Token.OPERATOR.value, _table(TURN_OF, byte_BT)[byte_BT], 0)
    sum_BT = _sum_since(turn_BT, first_BT)
    # Sums lie within T of 0: a later document's offset puts it below all that came before, so least values restart.
    offset_BT = first_BT * (2 * byte_BT.shape[1] + 1)
    least_BT = (sum_BT - offset_BT).cummin(1).values + offset_BT
    return sum_BT - least_BT.clamp(max=0)


def _name_hashes(byte_BT: Tensor, is_name_BT: Tensor, begins_BT: Tensor) -> Tensor:
    """The hash of each name so far, 0 outside names.

    h_t = a_t h_(t-1) + b_t with a = 0 where a name starts: composed with its predecessors in log2(T) rounds.
    """
    goes_on_BT = is_name_BT & _shifted(is_name_BT, 1, False) & ~begins_BT
    factor_BT = torch.where(goes_on_BT, HASH_FACTOR, 0)
    hash_BT = torch.where(is_name_BT, byte_BT, 0)
    reach = 1
    while reach < byte_BT.shape[1]:
        hash_BT = (hash_BT + factor_BT * _shifted(hash_BT, reach, 0)) % HASH_MODULUS
        factor_BT = factor_BT * _shifted(factor_BT, reach, 0) % HASH_MODULUS
        reach *= 2
    return hash_BT


def _distances(hash_BT: Tensor, is_name_BT: Tensor, first_BT: Tensor) -> Tensor:
    """The bucket of the distance to the last token of the document with this hash; 0 without one."""
    key_BT = torch.where(is_name_BT, first_BT * (HASH_MODULUS + 1) + hash_BT, -1)
    sorted_BT, order_BT = key_BT.sort(dim=1, stable=True)
    last_BT = torch.where(sorted_BT == _shifted(sorted_BT, 1, -2), _shifted(order_BT, 1, 0), order_BT)
    distance_BT = torch.zeros_like(order_BT).scatter(1, order_BT, order_BT - last_BT)
    powers = 2 ** torch.arange(DISTANCES - 1, device=hash_BT.device)
    return torch.where(is_name_BT, torch.bucketize(distance_BT, powers, right=True), 0)


def _words(byte_BT: Tensor, is_name_BT: Tensor, begins_BT: Tensor, first_BT: Tensor) -> Tensor:
    """What the last finished word was. Names are compared as numbers of eight bytes: exact, no keyword is longer."""
    index_T = torch.arange(byte_BT.shape[1], device=byte_BT.device)
    before_name_BT = torch.where(is_name_BT, -1, index_T).cummax(1).values
    length_BT = index_T - torch.maximum(before_name_BT, first_BT - 1)
    spelled_BT = torch.zeros_like(byte_BT)
    for back in range(KEYWORD_BYTES):
        spelled_BT += torch.where(back < length_BT, _shifted(byte_BT, back, 0) << 8 * back, 0)
    is_keyword_BT = torch.isin(spelled_BT, _table(KEYWORD_NUMBERS, byte_BT))
    is_keyword_BT &= length_BT <= KEYWORD_BYTES
    ends_BT = _shifted(is_name_BT, 1, False) & ~is_name_BT & ~begins_BT
    last_BT = torch.where(ends_BT, index_T - 1, -1).cummax(1).values
    kind_BT = torch.where(is_keyword_BT, Word.KEYWORD.value, Word.NAME.value).gather(1, last_BT.clamp(min=0))
    return torch.where(last_BT >= first_BT, kind_BT, Word.NONE.value)
