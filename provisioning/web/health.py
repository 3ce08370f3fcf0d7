"""/healthz, /readyz and /metrics: for machines that ask often, so they leave no canonical line."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web

from provisioning import log
from provisioning.metrics import CONTENT_TYPE
from provisioning.web.canonical import METRICS

CHECK_TIMEOUT: Final = 2.0
"""Seconds that one readiness check may take."""

Check = Callable[[], Awaitable[bool]]

READINESS: Final[web.AppKey[Mapping[str, Check]]] = web.AppKey("READINESS", Mapping)
"""What must work before requests can be served, by name."""


def routes() -> list[web.RouteDef]:
    """The application must hold `READINESS` and `METRICS`."""
    return [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)]


async def healthz(_request: web.Request) -> web.Response:
    """200 while the event loop turns."""
    return web.json_response({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """200, or 503 with the names of the checks that failed, raised, or took longer than CHECK_TIMEOUT."""
    checks = request.app[READINESS]
    passed = await asyncio.gather(*(_passes(name, check) for name, check in checks.items()))
    failed = [name for name, ok in zip(checks, passed, strict=True) if not ok]
    if failed:
        return web.json_response({"status": "unready", "failed": failed}, status=503)
    return web.json_response({"status": "ready"})


async def metrics(request: web.Request) -> web.Response:
    """Everything that Prometheus may know."""
    return web.Response(body=request.app[METRICS].expose(), headers={"Content-Type": CONTENT_TYPE})


async def _passes(name: str, check: Check) -> bool:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            return await check()
    except Exception as error:  # noqa: BLE001 - whatever went wrong, it is not ready
        log.get().debug("http.unready", check=name, error=repr(error))
        return False
