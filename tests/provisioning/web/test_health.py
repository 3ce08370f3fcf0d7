"""provisioning/web/health.py"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from provisioning.metrics import Metrics
from provisioning.sections import Http
from provisioning.web import health
from provisioning.web.operation import METRICS
from provisioning.web.site import Site

pytestmark = pytest.mark.server


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


async def raises() -> bool:
    raise OSError("gone")


async def hangs() -> bool:
    await asyncio.Event().wait()
    return True


async def get(path: str, checks: Mapping[str, Callable[[], Awaitable[bool]]]) -> tuple[int, str, str]:
    app = web.Application()
    app[METRICS] = Metrics()
    app[health.READINESS] = checks
    app.add_routes(health.routes())
    site = Site(app, host="127.0.0.1", port=0, settings=Http())
    await site.start()
    try:
        url = f"http://127.0.0.1:{site.port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status, response.headers["Content-Type"], await response.text()
    finally:
        await site.stop()


async def test_healthz_says_that_the_process_lives(lines: Any) -> None:
    assert await get("/healthz", {"database": no}) == (200, "application/json; charset=utf-8", '{"status": "ok"}')
    assert lines == []


async def test_readyz_is_ready_when_every_check_passes(lines: Any) -> None:
    status, _, text = await get("/readyz", {"database": yes, "broker": yes})
    assert (status, text) == (200, '{"status": "ready"}')
    assert lines == []


async def test_readyz_names_what_failed(lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CHECK_TIMEOUT", 0.05)
    status, _, text = await get("/readyz", {"a": no, "b": yes, "c": raises, "d": hangs})
    assert (status, text) == (503, '{"status": "unready", "failed": ["a", "c", "d"]}')
    assert {line["log_level"] for line in lines} == {"debug"}


async def test_metrics_speak_the_text_format(lines: Any) -> None:
    status, content_type, text = await get("/metrics", {})
    assert status == 200
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert "# TYPE gatehouse_requests_total counter" in text
    assert lines == []
