"""The JSON body of a request, read or refused.

Media type: RFC 9110, 8.3; content coding: RFC 9110, 8.4. The JSON itself: `parsing`.
"""

import asyncio
from typing import Final

from aiohttp import hdrs, web

from provisioning.model.refusal import Reason, Refusal
from provisioning.web.parsing import parse_json

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
