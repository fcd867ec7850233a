"""The rules of the incremental lexer: kinds of bytes, states of the text, and what a byte does in a state.

Python's strings, comments and names, as far as a prefix can know them. Any byte in any state has a next state: there
are no errors, and other languages give features too, only less telling ones. lexer.py follows these rules.
"""

from enum import IntEnum

FEATURES = ("indent", "depth", "text", "token", "word", "name", "distance")
"""In order: columns of white space before the line's first other byte; open brackets; in what kind of text; the byte's
token; the last finished word; hash of the name being read; how long ago that name, as far as read, stood here last."""

FEATURE_SIZES = (16, 8, 4, 8, 3, 256, 16)
"""How many values each feature has; all are from 0 up."""

INDENT_STEP = 2
"""Columns per value of `indent`."""
SPACE_WIDTH, TAB_WIDTH = 1, 4

# A polynomial hash modulo a prime below 2^31: products of two residues fit into an int64.
HASH_MODULUS = 2**31 - 1
HASH_FACTOR = 1_000_003

# Of Python 3.11; frozen here, so that a checkpoint means the same under another Python.
KEYWORDS = frozenset(
    b"False None True and as assert async await break class continue def del elif else except finally for from "
    b"global if import in is lambda nonlocal not or pass raise return try while with yield".split()
)
KEYWORD_BYTES = 8
"""No keyword is longer, so eight bytes in one int64 tell a keyword without any collision."""
KEYWORD_NUMBERS: tuple[int, ...] = tuple(sorted(int.from_bytes(word, "big") for word in KEYWORDS))


class Kind(IntEnum):
    """What a byte is by itself."""

    OTHER = 0
    NEWLINE = 1
    SPACE = 2
    LETTER = 3
    DIGIT = 4
    DOT = 5
    APOSTROPHE = 6
    QUOTE = 7
    BACKSLASH = 8
    COMMENT_SIGN = 9
    OPERATOR = 10


class Token(IntEnum):
    """What a byte is where it stands: the values of the feature `token`."""

    OTHER = 0
    NEWLINE = 1
    SPACE = 2
    NAME = 3
    NUMBER = 4
    OPERATOR = 5
    STRING = 6
    COMMENT = 7


class Word(IntEnum):
    """The last finished word of code in the document: the values of the feature `word`."""

    NONE = 0
    NAME = 1
    KEYWORD = 2


class Text(IntEnum):
    """The values of the feature `text`: what the next byte stands in, as far as is known."""

    CODE = 0
    COMMENT = 1
    STRING = 2
    TRIPLE = 3


# States outside strings.
CODE, NAME, NUMBER, COMMENT, FIRST_STRING = range(5)
# Places in a string, one set of states for each of the two quotes. EMPTY: two quotes, an empty string or half of an
# opening triple. ONE and TWO: quotes in a triple string that may be closing.
OPENED, EMPTY, SINGLE, SINGLE_ESCAPE, TRIPLE, TRIPLE_ESCAPE, ONE, TWO = PLACES = range(8)
STATES = FIRST_STRING + 2 * len(PLACES)

# Where the string's own quote, a backslash, a newline and any other byte lead; None is back to code.
_IN_STRING: tuple[tuple[int | None, int | None, int | None, int | None], ...] = (
    (EMPTY, SINGLE_ESCAPE, None, SINGLE),
    (TRIPLE, None, None, None),
    (None, SINGLE_ESCAPE, None, SINGLE),
    (SINGLE, SINGLE, SINGLE, SINGLE),
    (ONE, TRIPLE_ESCAPE, TRIPLE, TRIPLE),
    (TRIPLE, TRIPLE, TRIPLE, TRIPLE),
    (TWO, TRIPLE_ESCAPE, TRIPLE, TRIPLE),
    (None, TRIPLE_ESCAPE, TRIPLE, TRIPLE),
)
_PLAIN = {Kind.OTHER: Token.OTHER, Kind.NEWLINE: Token.NEWLINE, Kind.SPACE: Token.SPACE}


def _kind_of(token: int) -> Kind:
    """The kind of a token id. Bytes from 128 on are letters, as in UTF-8 names; ids that are no byte are OTHER."""
    special = {
        10: Kind.NEWLINE,
        46: Kind.DOT,
        39: Kind.APOSTROPHE,
        34: Kind.QUOTE,
        92: Kind.BACKSLASH,
        35: Kind.COMMENT_SIGN,
    }
    if token in special:
        return special[token]
    if not 0 <= token < 256 or token == 127:
        return Kind.OTHER
    byte = bytes([token])
    if byte.isspace():
        return Kind.SPACE
    if byte.isalpha() or byte == b"_" or token >= 128:
        return Kind.LETTER
    if byte.isdigit():
        return Kind.DIGIT
    return Kind.OPERATOR if token > 32 else Kind.OTHER


def _move(state: int, kind: Kind) -> tuple[int, Token]:
    """The state after a byte of this kind, and the byte's token."""
    if state == COMMENT:
        return (CODE, Token.NEWLINE) if kind is Kind.NEWLINE else (COMMENT, Token.COMMENT)
    if state >= FIRST_STRING:
        return _move_in_string(state, kind)
    return _move_in_code(state, kind)


def _text_of(state: int) -> Text:
    """The text that a byte after this state stands in. After two quotes that is code, until a third one comes."""
    if state < FIRST_STRING:
        return Text.COMMENT if state == COMMENT else Text.CODE
    place = (state - FIRST_STRING) % len(PLACES)
    if place == EMPTY:
        return Text.CODE
    return Text.TRIPLE if place >= TRIPLE else Text.STRING


def _move_in_string(state: int, kind: Kind) -> tuple[int, Token]:
    quote, place = divmod(state - FIRST_STRING, len(PLACES))
    is_own = kind == (Kind.APOSTROPHE, Kind.QUOTE)[quote]
    if place == EMPTY and not is_own:
        return _move_in_code(CODE, kind)
    column = 0 if is_own else {Kind.BACKSLASH: 1, Kind.NEWLINE: 2}.get(kind, 3)
    next_place = _IN_STRING[place][column]
    if next_place is None:
        return CODE, Token.NEWLINE if kind is Kind.NEWLINE else Token.STRING
    return FIRST_STRING + quote * len(PLACES) + next_place, Token.STRING


def _move_in_code(state: int, kind: Kind) -> tuple[int, Token]:
    if kind in (Kind.APOSTROPHE, Kind.QUOTE):
        return FIRST_STRING + (kind == Kind.QUOTE) * len(PLACES) + OPENED, Token.STRING
    if kind is Kind.COMMENT_SIGN:
        return COMMENT, Token.COMMENT
    if kind in (Kind.LETTER, Kind.DIGIT):
        is_number = state == NUMBER or (kind is Kind.DIGIT and state != NAME)
        return (NUMBER, Token.NUMBER) if is_number else (NAME, Token.NAME)
    if kind is Kind.DOT and state == NUMBER:
        return NUMBER, Token.NUMBER
    return CODE, _PLAIN.get(kind, Token.OPERATOR)


# The rules as tables, which both implementations read. Tables of bytes have one row more, for ids that are no byte.
NO_BYTE = 256
KIND_OF: tuple[int, ...] = tuple(int(_kind_of(token)) for token in range(NO_BYTE + 1))
"""The Kind of each byte."""
WIDTH_OF: tuple[int, ...] = tuple({32: SPACE_WIDTH, 9: TAB_WIDTH}.get(token, 0) for token in range(NO_BYTE + 1))
"""Columns of white space."""
TURN_OF: tuple[int, ...] = tuple((chr(token) in "([{") - (chr(token) in ")]}") for token in range(NO_BYTE + 1))
"""1 for brackets that open, -1 for those that close."""
NEXT_STATE: tuple[tuple[int, ...], ...] = tuple(
    tuple(_move(state, kind)[0] for state in range(STATES)) for kind in Kind
)
"""NEXT_STATE[kind][state] after a byte of this kind."""
READ: tuple[tuple[int, ...], ...] = tuple(tuple(int(_move(state, kind)[1]) for state in range(STATES)) for kind in Kind)
"""READ[kind][state]: the byte's Token."""
TEXT_OF: tuple[int, ...] = tuple(int(_text_of(state)) for state in range(STATES))
"""The Text of each state."""
