"""provisioning/web/stray.py"""

from typing import Any

import aiohttp
import pytest
from aiohttp import web

pytestmark = pytest.mark.server


async def hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def fails(_request: web.Request) -> web.Response:
    raise ZeroDivisionError


async def moves(_request: web.Request) -> web.Response:
    raise web.HTTPSeeOther("/hello")


ROUTES = (web.get("/hello", hello), web.post("/hello", hello), web.get("/fails", fails), web.get("/moves", moves))


async def ask(site: Any, method: str, path: str, **headers: str) -> tuple[int, Any, Any]:
    url = f"http://127.0.0.1:{site.port}{path}"
    async with aiohttp.ClientSession() as session, session.request(method, url, headers=headers) as response:
        return response.status, await response.json(), response.headers


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/nowhere?password=s3cret", 404, "not_found"),
        ("POST", "/a%0Ab/%FF/%00", 404, "not_found"),
        ("DELETE", "/hello", 405, "method_not_allowed"),
    ],
)
def test_what_no_operation_serves(
    *, run: Any, serve: Any, lines: Any, method: str, path: str, status: int, reason: str
) -> None:
    async def scenario() -> None:
        async with serve(*ROUTES) as site:
            got, body, headers = await ask(site, method, path)
            assert got == status
            assert body["path"] == path.partition("?")[0]
            assert "this path" in body["error"]
            if status == 405:
                assert headers["Allow"] == "GET, HEAD, POST"
                assert body["allowed"] == ["GET", "HEAD", "POST"]

    run(scenario())
    (line,) = lines
    assert (line["event"], line["protocol"], line["log_level"]) == ("http.request", "none", "info")
    assert (line["outcome"], line["reason"], line["status"]) == ("refused", reason, status)
    assert "s3cret" not in str(line)


def test_a_broken_page_is_an_error_with_a_traceback(run: Any, serve: Any, lines: Any) -> None:
    async def scenario() -> None:
        async with serve(*ROUTES) as site:
            assert (await ask(site, "GET", "/fails"))[:2] == (500, {"error": "internal error"})

    run(scenario())
    (line,) = lines
    assert (line["log_level"], line["outcome"], line["reason"]) == ("error", "failed", "internal")
    assert isinstance(line["exc_info"], ZeroDivisionError)


def test_a_page_and_a_redirection_leave_no_line(run: Any, serve: Any, lines: Any) -> None:
    async def scenario() -> None:
        async with (
            serve(*ROUTES) as site,
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{site.port}/moves") as response,
        ):
            assert await response.text() == "hello"

    run(scenario())
    assert lines == []


def test_an_expectation_that_cannot_be_met(run: Any, serve: Any, lines: Any) -> None:
    async def scenario() -> None:
        async with serve(*ROUTES) as site:
            assert (await ask(site, "GET", "/hello", Expect="a-miracle"))[0] == 417

    run(scenario())
    (line,) = lines
    assert (line["event"], line["reason"], line["status"]) == ("http.request", "expectation_failed", 417)
