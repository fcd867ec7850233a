"""The incremental lexer: both implementations agree on anything, and they read Python as Python's tokenizer does."""

import argparse
import ast
import io
import textwrap
import tokenize
import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kanctl.trainer.model.frame import frame_of
from kanctl.trainer.model.lexer import FEATURE_SIZES, FEATURES, PrefixLexer, lex_batch
from kanctl.trainer.model.lexer_rules import KEYWORD_BYTES, KEYWORDS, Text, Token, Word

END = 256
# Rich in what changes the state; `as` and `if` among the letters, a byte of UTF-8, a control byte, two that are none.
ALPHABET = [*b"'''\"\"\"\\\\\n\n\r\t  ([{}])##.asif019_+\xc3\x00", END, 300, -7]
STANDARD = [argparse, ast, textwrap, tokenize, types]
TEXTS = st.lists(st.sampled_from(ALPHABET), min_size=1, max_size=60)


def by_prefix(tokens_BT: Tensor, position_BT: Tensor) -> Tensor:
    rows = []
    for tokens_T, position_T in zip(tokens_BT.tolist(), position_BT.tolist(), strict=True):
        row, lexer = [], PrefixLexer()
        for token, place in zip(tokens_T, position_T, strict=True):
            lexer = PrefixLexer() if place == 0 else lexer
            row.append(lexer.feed(token))
        rows.append(row)
    return torch.tensor(rows)


def lexed(text: bytes) -> dict[str, list[int]]:
    """Each feature's values over a document; both implementations are asked, and must agree."""
    tokens_BT = torch.tensor([list(text)])
    position_BT = torch.arange(len(text))[None]
    features_BTF = lex_batch(tokens_BT, position_BT)
    assert torch.equal(features_BTF, by_prefix(tokens_BT, position_BT))
    return dict(zip(FEATURES, features_BTF[0].T.tolist(), strict=True))


def source(module: types.ModuleType) -> bytes:
    with open(module.__file__, "rb") as file:
        return file.read()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(TEXTS, min_size=1, max_size=3))
def test_both_implementations_agree_on_rows_of_any_documents(rows) -> None:
    tokens = max(map(len, rows))
    tokens_BT = torch.tensor([row + [END] * (tokens - len(row)) for row in rows])
    position_BT = frame_of(tokens_BT, END).position_BT
    features_BTF = lex_batch(tokens_BT, position_BT)
    assert features_BTF.dtype == torch.int64
    assert torch.equal(features_BTF, by_prefix(tokens_BT, position_BT))
    assert (features_BTF >= 0).all()
    assert (features_BTF < torch.tensor(FEATURE_SIZES)).all()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.binary(min_size=1, max_size=300))
def test_both_implementations_agree_on_any_bytes(text: bytes) -> None:
    assert len(lexed(text)) == len(FEATURE_SIZES)


@pytest.mark.parametrize("module", STANDARD[:3], ids=lambda module: module.__name__)
def test_both_implementations_agree_on_real_source(module) -> None:
    text = source(module)
    lexed(text[:3000])
    lexed(text[7001:8200])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(TEXTS, st.integers(1, 60))
def test_features_of_a_prefix_are_the_prefix_of_the_features(text, length) -> None:
    tokens_BT = torch.tensor([text])
    position_BT = frame_of(tokens_BT, END).position_BT
    whole = lex_batch(tokens_BT, position_BT)
    assert torch.equal(lex_batch(tokens_BT[:, :length], position_BT[:, :length]), whole[:, :length])


def test_features_of_real_source_depend_on_the_prefix_only() -> None:
    text = torch.tensor([list(source(argparse)[:2000])])
    place = torch.arange(2000)[None]
    whole = lex_batch(text, place)
    for length in (1, 2, 777, 1999):
        assert torch.equal(lex_batch(text[:, :length], place[:, :length]), whole[:, :length])


def test_a_document_knows_nothing_of_the_one_before() -> None:
    text = b"def f(a):\n    return a"
    alone = lexed(text)
    tokens_BT = torch.tensor([[*b"if f: '''(([ a", END, *text]])
    after = lex_batch(tokens_BT, frame_of(tokens_BT, END).position_BT)[0, 15:]
    assert dict(zip(FEATURES, after.T.tolist(), strict=True)) == alone


def expected_tokens(text: bytes) -> list[int | None]:
    """What Python's tokenizer says of each byte, as values of `token`; None where the two need not agree."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    values: list[int | None] = [None] * len(text)
    classes = {
        tokenize.NAME: Token.NAME,
        tokenize.NUMBER: Token.NUMBER,
        tokenize.OP: Token.OPERATOR,
        tokenize.STRING: Token.STRING,
        tokenize.COMMENT: Token.COMMENT,
    }
    for token in tokenize.tokenize(io.BytesIO(text).readline):
        if token.type in classes:
            begin, end = (starts[row - 1] + column for row, column in (token.start, token.end))
            # Letters before a string's quote are a name until the quote is read.
            begin += len(token.string) - len(token.string.lstrip("rbfuRBFU")) if token.type == tokenize.STRING else 0
            values[begin:end] = [int(classes[token.type])] * (end - begin)
    return values


@pytest.mark.parametrize("module", STANDARD, ids=lambda module: module.__name__)
def test_tokens_are_those_of_pythons_tokenizer(module) -> None:
    """Real files in ASCII; exponents such as the -7 of 1e-7 are the one thing read differently, and are not there."""
    text = source(module).decode("ascii", "replace").replace("\ufffd", "?").encode()
    tokens_BT = torch.tensor([list(text)])
    features = lex_batch(tokens_BT, torch.arange(len(text))[None])[0, :, FEATURES.index("token")].tolist()
    wrong = [
        text[max(t - 30, 0) : t + 10]
        for t, (ours, theirs) in enumerate(zip(features, expected_tokens(text), strict=True))
        if theirs is not None and ours != theirs
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        (rb"a'b'c", "csscc"),
        (rb"'\''x", "ssscc"),
        (rb"'\\'x", "ssscc"),
        (rb"''x''", "sccsc"),
        (rb"'''a''b'''c", "sctttttttcc"),
        (rb"'''a'\'''b", "sctttttttt"),
        (rb"'''a''\'''b", "scttttttttt"),
        (rb'"""\"""" "', "sctttttccs"),
        (b"'a\nb", "sscc"),
        (b"'a\\\nb'", "sssssc"),
        (b"#'a\n'", "###cs"),
        (b"'#'#", "ssc#"),
        (b"\"'\"'", "sscs"),
        (b"''''", "sctt"),
    ],
)
def test_the_text_that_a_byte_leads_into(text: bytes, kinds: str) -> None:
    letters = {"c": Text.CODE, "s": Text.STRING, "t": Text.TRIPLE, "#": Text.COMMENT}
    assert lexed(text)["text"] == [letters[kind] for kind in kinds]


def test_depth_counts_brackets_of_code_only_and_never_falls_below_zero() -> None:
    assert lexed(b"([{}])")["depth"] == [1, 2, 3, 2, 1, 0]
    assert lexed(b"))(])(")["depth"] == [0, 0, 1, 0, 0, 1]
    assert lexed(b"(')'#)\n)")["depth"] == [1, 1, 1, 1, 1, 1, 1, 0]
    assert lexed(b"(" * 12)["depth"] == [1, 2, 3, 4, 5, 6, 7, 7, 7, 7, 7, 7]


def test_indent_counts_leading_columns_of_the_line_read_so_far() -> None:
    assert lexed(b"    a  b\n  \tc\n\nd")["indent"] == [0, 1, 1, 2, 2, 2, 2, 2, 0, 0, 1, 3, 3, 0, 0, 0]
    assert lexed(b" " * 40)["indent"][-1] == 15


def test_a_keyword_is_known_when_it_has_ended() -> None:
    words = lexed(b"if iffy:\n x")["word"]
    none, name, keyword = Word.NONE, Word.NAME, Word.KEYWORD
    assert words == [none, none, keyword, keyword, keyword, keyword, keyword, name, name, name, name]
    assert lexed(b"'if' #if\n3if ")["word"] == [none] * 13


@pytest.mark.parametrize("word", sorted(KEYWORDS))
def test_keywords_are_told_from_longer_and_shorter_names(word: bytes) -> None:
    assert len(word) <= KEYWORD_BYTES
    assert lexed(word + b" ")["word"][-1] == Word.KEYWORD
    for other in (word + b"s", b"x" + word, word[:-1] + b"_", b"continue" + word):
        assert lexed(other + b" ")["word"][-1] == Word.NAME


def test_names_have_the_same_values_wherever_they_stand_and_others_have_none() -> None:
    names = lexed(b"self.x = self.y + 'self' # self\nself")["name"]
    assert names[:4] == names[9:13] == names[-4:]
    assert len(set(names[:4])) == 4
    assert 0 not in names[:4]
    assert set(names[14 + 1 : 32]) == {0}


def test_distance_is_the_bit_length_of_the_way_back_to_the_same_prefix() -> None:
    #                 a b _ a b c _ a _ x
    assert lexed(b"ab abc a x")["distance"] == [0, 0, 0, 2, 2, 0, 0, 3, 0, 0]
    far = lexed(b"q" + b" " * 70_000 + b"q")["distance"]
    assert far[-1] == 15


def test_bytes_of_utf_8_are_letters_and_a_name_may_have_any_length() -> None:
    lexer = PrefixLexer()
    features = [lexer.feed(0xE9) for _ in range(20_000)]
    assert features[-1][FEATURES.index("token")] == Token.NAME


def test_tokens_and_positions_must_have_one_shape() -> None:
    with pytest.raises(ValueError, match=r"wanted tokens and positions of one shape \(B, T\)"):
        lex_batch(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(1, 3, dtype=torch.int64))
