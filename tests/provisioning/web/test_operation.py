"""provisioning/web/operation.py"""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from provisioning.model.refusal import Reason, Refusal
from provisioning.web.body import read_json
from provisioning.web.operation import Handler, note, operation

pytestmark = pytest.mark.server


def refuse(refusal: Refusal) -> web.Response:
    """The shape of a vendor of the tests' own."""
    status = {Reason.UNAVAILABLE: 503, Reason.INTERNAL: 500}.get(refusal.reason, 403)
    return web.json_response({"no": refusal.reason, "field": refusal.detail.get("field")}, status=status)


def route(handler: Handler) -> web.RouteDef:
    return web.post("/do/{what}", operation("test", "do", handler, refuse))


async def call(site: Any) -> tuple[int, Any]:
    url = f"http://127.0.0.1:{site.port}/do/it?signature=s3cret"
    async with aiohttp.ClientSession() as session, session.post(url, json={}) as response:
        return response.status, await response.json()


def test_accepted(run: Any, serve: Any, lines: Any) -> None:
    async def handler(request: web.Request) -> web.Response:
        note(request, product="p1", device="d1")
        note(request, device="d2")
        return web.json_response({"yes": 1}, status=201)

    async def scenario() -> None:
        async with serve(route(handler)) as site:
            assert await call(site) == (201, {"yes": 1})
            assert b'requests_total{operation="do",outcome="accepted",protocol="test"} 1.0' in site.metrics.expose()

    run(scenario())
    (line,) = lines
    assert line.pop("peer").startswith("127.0.0.1:")
    assert line.pop("ms") >= 0
    assert line == {
        "event": "http.do",
        "log_level": "info",
        "protocol": "test",
        "method": "POST",
        "path": "/do/it",
        "status": 201,
        "outcome": "accepted",
        "reason": "",
        "product": "p1",
        "device": "d2",
    }


@pytest.mark.parametrize(
    ("reason", "status", "outcome", "level"),
    [
        (Reason.NOT_PROVEN, 403, "refused", "info"),
        (Reason.MALFORMED, 403, "refused", "info"),
        (Reason.UNAVAILABLE, 503, "failed", "warning"),
        (Reason.INTERNAL, 500, "failed", "error"),
    ],
)
def test_refusal(*, run: Any, serve: Any, lines: Any, reason: Reason, status: int, outcome: str, level: str) -> None:
    async def handler(request: web.Request) -> web.Response:
        note(request, serial="s1")
        raise Refusal(reason, field="sn", status="must not win", event="must not clash")

    async def scenario() -> None:
        async with serve(route(handler)) as site:
            assert await call(site) == (status, {"no": reason, "field": "sn"})
            counted = f'requests_total{{operation="do",outcome="{outcome}",protocol="test"}} 1.0'
            assert counted.encode() in site.metrics.expose()

    run(scenario())
    (line,) = lines
    assert line["log_level"] == level
    assert (line["outcome"], line["reason"], line["status"]) == (outcome, reason, status)
    assert (line["serial"], line["field"]) == ("s1", "sn")


@pytest.mark.parametrize("error", [ZeroDivisionError("boom"), TimeoutError("not ours"), ConnectionResetError("db")])
def test_anything_unexpected_is_internal(run: Any, serve: Any, lines: Any, error: Exception) -> None:
    async def handler(_request: web.Request) -> web.Response:
        raise error

    async def scenario() -> None:
        async with serve(route(handler)) as site:
            assert await call(site) == (500, {"no": "internal", "field": None})

    run(scenario())
    (line,) = lines
    assert line["exc_info"] is error
    assert (line["log_level"], line["outcome"], line["reason"]) == ("error", "failed", "internal")


def test_a_table_with_a_hole_still_answers(run: Any, serve: Any, lines: Any) -> None:
    def broken(_refusal: Refusal) -> web.Response:
        raise KeyError("no such row")

    async def handler(_request: web.Request) -> web.Response:
        raise Refusal(Reason.STALE)

    async def scenario() -> None:
        async with serve(web.post("/do/it", operation("test", "do", handler, broken))) as site:
            assert await call(site) == (500, {"error": "internal error"})

    run(scenario())
    (line,) = lines
    assert (line["outcome"], line["reason"], type(line["exc_info"])) == ("failed", "stale", KeyError)


def test_too_slow_is_unavailable(run: Any, serve: Any, lines: Any) -> None:
    async def handler(_request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    async def scenario() -> None:
        async with serve(route(handler), request_timeout=0.05) as site:
            assert await call(site) == (503, {"no": "unavailable", "field": None})

    run(scenario())
    (line,) = lines
    assert (line["outcome"], line["reason"], line["status"]) == ("failed", "unavailable", 503)
    assert line["ms"] >= 50


HEADER = b"POST /do/it HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"


async def reads(request: web.Request) -> web.Response:
    return web.json_response(await read_json(request, 100))


def test_a_body_that_does_not_come_is_malformed(run: Any, serve: Any, lines: Any) -> None:
    async def scenario() -> None:
        async with serve(route(reads), request_timeout=0.05) as site:
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(HEADER + b'{"a"')
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0]))
            assert json.loads(body) == {"no": "malformed", "field": "body"}
            assert b"connection: close" in head.lower()
            writer.transport.abort()

    run(scenario())
    (line,) = lines
    assert (line["outcome"], line["reason"], line["field"]) == ("refused", "malformed", "body")


def test_a_client_that_leaves_in_its_body(run: Any, serve: Any, lines: Any, until: Any) -> None:
    async def scenario() -> None:
        async with serve(route(reads)) as site:
            _, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(HEADER + b'{"a"')
            await until(lambda: site.metrics and site.connections == 1)
            writer.transport.abort()
            await until(lambda: lines)
            await until(lambda: site.connections == 0)

    run(scenario())
    (line,) = lines
    assert (line["outcome"], line["reason"], line["status"]) == ("failed", "client_gone", None)
    assert line["log_level"] == "warning"
    assert line["peer"].startswith("127.0.0.1:")


def test_work_goes_on_when_the_client_leaves_after_its_body(run: Any, serve: Any, lines: Any, until: Any) -> None:
    async def scenario() -> None:
        begun, may_end = asyncio.Event(), asyncio.Event()

        async def handler(_request: web.Request) -> web.Response:
            begun.set()
            await may_end.wait()
            return web.Response()

        async with serve(route(handler)) as site:
            _, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(HEADER + b'{"a": 12}')
            await begun.wait()
            writer.transport.abort()
            await until(lambda: site.connections == 0)
            may_end.set()
            await until(lambda: lines)

    run(scenario())
    (line,) = lines
    assert (line["outcome"], line["status"]) == ("accepted", 200)


def test_cancellation_goes_on_up(run: Any, serve: Any, lines: Any, until: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provisioning.web.site.GRACE", 0.01)
    monkeypatch.setattr("provisioning.web.site.LAST_CALL", 0.01)
    ended, begun = [], []

    async def handler(_request: web.Request) -> web.Response:
        begun.append(1)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return web.Response()

    async def scenario() -> None:
        async with serve(route(handler)) as site:
            _, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(HEADER + b'{"a": 12}')
            await until(lambda: begun)
        writer.transport.abort()

    run(scenario())
    assert ended == ["cancelled"]
    assert [(line["event"], line.get("reason")) for line in lines] == [("http.cut_off", None), ("http.do", "cancelled")]
