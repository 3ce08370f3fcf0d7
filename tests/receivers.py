"""Somebody who is told by webhooks: an HTTPS server of the tests' own, and how it behaves."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tests import peers

ENDS: web.AppKey[asyncio.Event] = web.AppKey("ENDS", asyncio.Event)
Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def accept(_: web.Request) -> web.StreamResponse:
    return web.Response()


async def stall(request: web.Request) -> web.StreamResponse:
    """As long as the receiver is there."""
    await request.app[ENDS].wait()
    return web.Response(status=503)


async def close(request: web.Request) -> web.StreamResponse:
    """In the middle of the answer's header."""
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 200 O")
    request.transport.close()
    return web.Response()


async def babble(request: web.Request) -> web.StreamResponse:
    """What is no HTTP."""
    assert request.transport is not None
    request.transport.write(b"220 mail.example ESMTP\r\n")
    request.transport.close()
    return web.Response()


async def dawdle(request: web.Request) -> web.StreamResponse:
    """200 at once, and a body that does not end."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"x")
    await request.app[ENDS].wait()
    return response


async def pour(request: web.Request) -> web.StreamResponse:
    """200, and a body that does not end: as much as anybody takes."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(bytes(65_536))


def answer(status: int, **headers: str) -> Behaviour:
    async def behave(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers=headers, text="any")

    return behave


@dataclass
class Post:
    path: str
    body: bytes
    headers: Any = field(repr=False)

    @property
    def event(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """`behave` decides what it does next; everything that reaches it is in `posts`."""

    port: int
    ca: Path
    """Who has issued its certificate."""
    behave: Behaviour = accept
    posts: list[Post] = field(default_factory=list)
    connections: set[Any] = field(default_factory=set)

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        return f"https://{host}:{self.port}{path}"

    @property
    def bodies(self) -> list[str]:
        return [each.body.decode() for each in self.posts]


@asynccontextmanager
async def receiver(directory: Path, *names: str) -> AsyncIterator[Receiver]:
    """On a free port of 127.0.0.1, with a certificate for this address and `localhost`, or for `names`."""
    found: Receiver

    async def serve(request: web.Request) -> web.StreamResponse:
        found.posts.append(Post(request.path_qs, await request.read(), request.headers.copy()))
        found.connections.add(request.transport)
        return await found.behave(request)

    ca = directory / "receivers.pem"
    ca.write_bytes(peers.AUTHORITY.pem)
    own = peers.write(directory / "receiver.pem", peers.leaf("receiver", *(names or ("127.0.0.1", "localhost"))))
    app = web.Application()
    app[ENDS] = asyncio.Event()
    app.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.01, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=peers.server(own))
    try:
        await site.start()
        found = Receiver(runner.addresses[0][1], ca)
        yield found
    finally:
        app[ENDS].set()
        await runner.cleanup()
