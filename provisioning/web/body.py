"""The JSON body of a request, read or refused.

JSON: RFC 8259, with the holes closed that it leaves to implementations (sections 4, 6 and 8: names twice, numbers
without bounds, lone surrogates). Media type: RFC 9110, 8.3; content coding: RFC 9110, 8.4.
"""

import asyncio
import json
import math
from typing import Final

from aiohttp import hdrs, web

from provisioning.model.refusal import Reason, Refusal

MAX_DEPTH: Final = 64
"""Arrays and objects within each other."""
MAX_DIGITS: Final = 64
"""Digits of an integer: converting a long one takes quadratic time."""
BODY: Final = web.RequestKey("BODY", object)
"""What came of reading a request's body, its bytes or an exception: who decides whose a request is has to look."""


async def read_json(request: web.Request, limit: int) -> object:
    """The JSON value in the body of `request`, which may have `limit` bytes.

    What the header alone can tell is refused before a byte of the body is read; the site then sees to it that the
    client gets its answer before the connection ends.

    Raises:
        Refusal: UNSUPPORTED_MEDIA_TYPE with field Content-Type or Content-Encoding; TOO_LARGE with field body and
            the limit; MALFORMED with field body.
        ConnectionResetError: the client left.
    """
    if not is_json(request.headers.get(hdrs.CONTENT_TYPE, "")):
        raise Refusal(Reason.UNSUPPORTED_MEDIA_TYPE, field=hdrs.CONTENT_TYPE)
    return parse_json(await read_bytes(request, limit))


async def read_bytes(request: web.Request, limit: int) -> bytes:
    """The body of `request` as it is, whatever its media type; otherwise as `read_json`.

    It can be asked for again, and says the same again: whoever was refused or interrupted has taken a part of the body,
    and nobody may take the rest of it for the whole.
    """
    known = request.get(BODY)
    if isinstance(known, Exception):
        raise known
    if any(each.strip().lower() != "identity" for each in request.headers.getall(hdrs.CONTENT_ENCODING, ())):
        raise Refusal(Reason.UNSUPPORTED_MEDIA_TYPE, field=hdrs.CONTENT_ENCODING)
    if (request.content_length or 0) > limit or (isinstance(known, bytes) and len(known) > limit):
        raise Refusal(Reason.TOO_LARGE, field="body", limit=limit)
    if isinstance(known, bytes):
        return known
    try:
        request[BODY] = body = await _read(request, limit)
    except asyncio.CancelledError:
        request[BODY] = Refusal(Reason.MALFORMED, field="body")
        raise
    except Exception as error:
        request[BODY] = error
        raise
    return body


async def _read(request: web.Request, limit: int) -> bytes:
    body = bytearray()
    try:
        while chunk := await request.content.readany():
            body += chunk
            if len(body) > limit:
                raise Refusal(Reason.TOO_LARGE, field="body", limit=limit)
    except web.RequestPayloadError:
        raise Refusal(Reason.MALFORMED, field="body") from None
    return bytes(body)


def is_json(content_type: str) -> bool:
    """True for the Content-Type `application/json` with no charset or with UTF-8."""
    media_type, *parameters = content_type.split(";")
    if media_type.strip().lower() != "application/json":
        return False
    pairs = (parameter.partition("=") for parameter in parameters)
    return all(
        value.strip().strip('"').lower() in {"utf-8", "utf8"}
        for name, _, value in pairs
        if name.strip().lower() == "charset"
    )


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
