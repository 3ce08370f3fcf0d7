"""`POST /device/register`, a path that two vendors have. Whose a request is, its headers and its body say."""

import asyncio
from contextlib import suppress

from aiohttp import web

from provisioning.model.refusal import Refusal
from provisioning.protocols.ioto.mqtt import Ioto
from provisioning.protocols.tencent import wire
from provisioning.protocols.tencent.mqtt import Tencent
from provisioning.web.body import read_bytes
from provisioning.web.operation import REQUEST_TIMEOUT
from provisioning.web.parsing import parse_json

LARGEST_BODY = 16_384


def routes(tencent: Tencent, ioto: Ioto) -> list[web.RouteDef]:
    """The one route, in front of both vendors' own operations: what cannot be read, they refuse."""
    theirs, others = tencent.register(), ioto.register()

    async def register(request: web.Request) -> web.StreamResponse:
        return await (theirs if await _is_tencent(request) else others)(request)

    return [web.post(wire.REGISTER_PATH, register)]


async def _is_tencent(request: web.Request) -> bool:
    """By its headers where they tell; only else is the body waited for, as long as an operation would."""
    if wire.is_mine(request.headers, None):
        return True
    with suppress(Refusal, TimeoutError, ConnectionError):  # the operation is told the same, and says so
        async with asyncio.timeout(request.app[REQUEST_TIMEOUT]):
            body = await read_bytes(request, LARGEST_BODY)
        return wire.is_mine((), parse_json(body))
    return False
