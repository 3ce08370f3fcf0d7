"""JSON as it is sent to us, read or refused. Pure.

RFC 8259, with the holes closed that it leaves to implementations (sections 4, 6 and 8: names twice, numbers without
bounds, lone surrogates).
"""

import json
import math
from typing import Final

from provisioning.model.refusal import Reason, Refusal

MAX_DEPTH: Final = 64
"""Arrays and objects within each other."""
MAX_DIGITS: Final = 64
"""Digits of an integer: converting a long one takes quadratic time."""


def parse_json(data: bytes) -> object:
    """The JSON value that `data` holds: dict, list, str, int, float, bool or None.

    Text in it can be stored and sent again: it has no lone surrogate and no NUL. Numbers are finite.

    Raises:
        Refusal: MALFORMED with field body: not UTF-8, not JSON, a name twice in one object, NaN or an infinity, an
            integer of more than MAX_DIGITS digits, more than MAX_DEPTH levels.
    """
    try:
        value: object = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_constant,
        )
        _check(value)
    except (ValueError, RecursionError):
        raise Refusal(Reason.MALFORMED, field="body") from None
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return members


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError("an integer is too long")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _check(value: object) -> None:
    # a stack of our own: recursion is what a nesting bomb aims at
    stack: list[tuple[object, int]] = [(value, 1)]
    while stack:
        value, depth = stack.pop()
        if isinstance(value, str):
            _check_text(value)
        elif isinstance(value, dict | list):
            if depth > MAX_DEPTH:
                raise ValueError("nested too deeply")
            if isinstance(value, dict):
                stack.extend((name, depth + 1) for name in value)
            stack.extend((child, depth + 1) for child in (value.values() if isinstance(value, dict) else value))


def _check_text(text: str) -> None:
    if "\0" in text:
        raise ValueError("NUL in a string")
    if not text.isascii():
        text.encode("utf-8")  # a lone surrogate is a UnicodeEncodeError, which is a ValueError
