"""A real Site on a free port, on both event loops, with an application of the tests' own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import uvloop
from aiohttp import web

from provisioning.metrics import Metrics
from provisioning.sections import Http
from provisioning.web.operation import METRICS, REQUEST_TIMEOUT
from provisioning.web.site import Site
from provisioning.web.stray import catch_strays


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Coroutine[Any, Any, None]], None]]:
    """Run a coroutine to its end on a loop of its own."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner.run


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """The structured log; a test fails when aiohttp or asyncio logged anything of their own."""
    before = structlog.get_config()
    structlog.reset_defaults()  # another test may have set a level
    with structlog.testing.capture_logs() as captured:
        yield captured
    structlog.configure(**before)
    foreign = [(record.name, record.getMessage()) for record in caplog.records if record.levelname != "DEBUG"]
    assert foreign == []


@asynccontextmanager
async def _serve(*routes: web.RouteDef, **settings: Any) -> AsyncIterator[Site]:
    http = Http(host="127.0.0.1", port=0, **settings)
    app = web.Application(middlewares=[catch_strays])
    app[METRICS] = Metrics()
    app[REQUEST_TIMEOUT] = http.request_timeout
    app.add_routes(routes)
    site = Site(app, host=http.host, port=http.port, settings=http)
    await site.start()
    try:
        yield site
    finally:
        await site.stop()


@pytest.fixture
def serve() -> Callable[..., Any]:
    return _serve


async def _talk(site: Site, *parts: bytes) -> bytes:
    """Send `parts`, each on its own, and read until the server closes; a reset counts as a close."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    got = bytearray()
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            while chunk := await reader.read(65_536):
                got += chunk
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return bytes(got)


@pytest.fixture
def talk() -> Callable[..., Any]:
    return _talk


@pytest.fixture
def until() -> Callable[[Callable[[], object]], Coroutine[Any, Any, None]]:
    """Wait for a condition."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
                await asyncio.sleep(0.002)

    return wait
