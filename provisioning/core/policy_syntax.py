"""How a policy is written: text -> tree, or the column where it is wrong. `policy` says what it means.

    expression = any ;                      any    = all { ("||" | "or") all } ;
    all        = not { ("&&" | "and") not } ;
    not        = ("!" | "not") not | test ; test   = value [ operator value | ["not"] "in" value ] ;
    operator   = "==" | "!=" | "<" | "<=" | ">" | ">=" ;
    value      = "(" any ")" | list | text | number | "true" | "false" | "null" | name ;
    list       = "[" [ value { "," value } ] "]" ;      of constants
    name       = word { "." word } ;                    a submitted field, or one within it

There is nothing else: no calls, no attributes, no arithmetic, no patterns; length and depth are bounded.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NoReturn

from provisioning.model.refusal import Reason, Refusal

LONGEST: Final = 1_000
"""Characters of an expression."""
DEEPEST: Final = 16
"""Parentheses and negations within each other."""
MOST_DIGITS: Final = 15
"""Of a number: what a double holds exactly."""
LONGEST_QUOTE: Final = 20

TOKEN: Final = re.compile(
    r"""[ \t\r\n]*(?:
        (?P<number>-?[0-9]+(?:\.[0-9]+)?(?![A-Za-z0-9_.]))
      | (?P<text>"(?:[^"\\]|\\["\\])*"|'(?:[^'\\]|\\['\\])*')
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)
      | (?P<sign>==|!=|<=|>=|&&|\|\||[<>!()\[\],])
      | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
ESCAPED: Final = re.compile(r"\\(.)")
SPELLINGS: Final = {"&&": "and", "||": "or", "!": "not"}
WORDS: Final = frozenset({"and", "or", "not", "in", "true", "false", "null"})
CONSTANTS: Final[Mapping[str, object]] = MappingProxyType({"true": True, "false": False, "null": None})
COMPARISONS: Final = frozenset({"==", "!=", "<", "<=", ">", ">="})


@dataclass(frozen=True, slots=True)
class Constant:
    value: object


@dataclass(frozen=True, slots=True)
class Field:
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Not:
    part: "Node"


@dataclass(frozen=True, slots=True)
class All:
    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Any:
    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """`sign` is one of COMPARISONS, `in` or `not in`."""

    left: "Node"
    sign: str
    right: "Node"


Node = Constant | Field | Not | All | Any | Comparison


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    column: int

    def __str__(self) -> str:
        if self.kind == "end":
            return "the end"
        return self.text if len(self.text) <= LONGEST_QUOTE else f"{self.text[:LONGEST_QUOTE]}…"


def _refuse(column: int, why: str) -> NoReturn:
    raise Refusal(Reason.MALFORMED, field="policy", rule=f"is wrong at column {column}: {why}", column=column)


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while True:
        found = TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            at += len(text[at:]) - len(text[at:].lstrip(" \t\r\n"))
            _refuse(at + 1, _unknown(text[at:]))
        yield _Token(found.lastgroup, found[found.lastgroup], found.start(found.lastgroup) + 1)
        if found.lastgroup == "end":
            return
        at = found.end()


def _unknown(rest: str) -> str:
    if rest[0] in "\"'":
        return "this text has no end; a backslash stands before a quote or a backslash only"
    if rest[0] == "=":
        return "a comparison is written =="
    if rest[0] in "-0123456789":
        return "this is no number; a version is a text in quotes"
    return f"{rest[0]!r} means nothing here"


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = next(self._tokens)
        self._depth = 0

    def read(self) -> Node:
        node = self._any()
        if self._next.kind != "end":
            _refuse(self._next.column, f"expected and, or, or the end, not {self._next}")
        return node

    def _take(self) -> _Token:
        taken = self._next
        if taken.kind != "end":
            self._next = next(self._tokens)
        return taken

    def _is(self, *words: str) -> bool:
        word = SPELLINGS.get(self._next.text, self._next.text)
        return self._next.kind in {"name", "sign"} and word in words

    def _any(self) -> Node:
        parts = [self._all()]
        while self._is("or"):
            self._take()
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Any(tuple(parts))

    def _all(self) -> Node:
        parts = [self._not()]
        while self._is("and"):
            self._take()
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _not(self) -> Node:
        if not self._is("not"):
            return self._test()
        self._deeper(self._take().column)
        part = self._not()
        self._depth -= 1
        return Not(part)

    def _test(self) -> Node:
        column = self._next.column
        left = self._value()
        if not self._is(*COMPARISONS, "in", "not"):
            return self._truth(left, column)
        sign = self._take()
        if SPELLINGS.get(sign.text, sign.text) == "not":
            if sign.text == "!" or not self._is("in"):
                _refuse(sign.column, "expected a comparison, and, or, or the end")
            self._take()
            word = "not in"
        else:
            word = sign.text
        right_column = self._next.column
        right = self._value()
        if word in {"in", "not in"} and not isinstance(right, Field) and not _is_list(right):
            _refuse(right_column, "behind in stands a list or a field that holds one")
        if word not in {"in", "not in"} and _is_list(right):
            _refuse(right_column, "a list stands behind in only")
        if _is_list(left):
            _refuse(column, "a list stands behind in only")
        for each, at in ((left, column), (right, right_column)):
            if isinstance(each, Not | All | Any | Comparison):
                _refuse(at, "what is true or false is not compared: join it by and, or")
        if self._is(*COMPARISONS, "in"):
            _refuse(self._next.column, "comparisons do not follow each other: join them by and")
        return Comparison(left, word, right)

    def _truth(self, node: Node, column: int) -> Node:
        """What stands alone must be true or false."""
        if isinstance(node, Constant) and not isinstance(node.value, bool):
            _refuse(column, "a text, number or list alone is neither true nor false: compare it")
        return node

    def _value(self) -> Node:
        token = self._take()
        match token.kind:
            case "number":
                return Constant(_number(token))
            case "text":
                return Constant(ESCAPED.sub(r"\1", token.text[1:-1]))
            case "name" if token.text in CONSTANTS:
                return Constant(CONSTANTS[token.text])
            case "name" if token.text not in WORDS:
                if self._is("("):
                    _refuse(self._next.column, "there are no functions here")
                return Field(tuple(token.text.split(".")))
        if token.text == "(":
            self._deeper(token.column)
            node = self._any()
            self._expect(")")
            self._depth -= 1
            return node
        if token.text == "[":
            return self._list()
        _refuse(token.column, f"expected a field, a text in quotes, a number, true, false, null or (, not {token}")

    def _list(self) -> Node:
        items: list[object] = []
        while not self._is("]"):
            column = self._next.column
            item = None if self._is("[", "(") else self._value()  # no list within a list, however deep
            if not isinstance(item, Constant):
                _refuse(column, "a list holds texts, numbers, true, false and null")
            items.append(item.value)
            if not self._is("]"):
                self._expect(",")
        self._take()
        return Constant(tuple(items))

    def _expect(self, sign: str) -> None:
        if not self._is(sign):
            _refuse(self._next.column, f"expected {sign}, not {self._next}")
        self._take()

    def _deeper(self, column: int) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            _refuse(column, f"more than {DEEPEST} parentheses or negations within each other")


def _is_list(node: Node) -> bool:
    return isinstance(node, Constant) and isinstance(node.value, tuple)


def _number(token: _Token) -> int | float:
    if sum(map(str.isdigit, token.text)) > MOST_DIGITS:
        _refuse(token.column, f"a number has {MOST_DIGITS} digits at most")
    return float(token.text) if "." in token.text else int(token.text)


@lru_cache(maxsize=1_024)
def read(text: str) -> Node:
    """The expression; a text of nothing but blanks is true for every device.

    Raises:
        Refusal: MALFORMED, field `policy`, with a `rule` that names the column (from 1).
    """
    if len(text) > LONGEST:
        _refuse(LONGEST + 1, f"a policy has {LONGEST} characters at most")
    return _Reader(text).read() if text.strip(" \t\r\n") else Constant(value=True)
