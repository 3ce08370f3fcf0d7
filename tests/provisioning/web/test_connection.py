"""provisioning/web/connection.py: what aiohttp leaves to us, and the private names that are used for it."""

import asyncio
import logging
import random
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.http import RawRequestMessage

from provisioning.model.refusal import Refusal
from provisioning.web import connection, site
from provisioning.web.body import read_json
from provisioning.web.connection import MAX_FIELDS, MAX_HEADER, MAX_LINE, Connection
from provisioning.web.operation import operation

pytestmark = pytest.mark.server

GET = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"


async def hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


HELLO = web.get("/hello", hello)
ANY = web.route("*", "/hello", hello)


# the names of aiohttp's that this file and its source lean on


def test_contract_names(run: Any, serve: Any) -> None:
    async def scenario() -> None:
        slots = {name for base in Connection.__mro__ for name in getattr(base, "__slots__", ())}
        assert {"_waiter", "_messages", "_request_count", "_task_handler"} <= slots
        ours = set(Connection.__slots__)
        assert not ours & {name for base in web.RequestHandler.__mro__ for name in getattr(base, "__slots__", ())}

    run(scenario())


def test_contract_waiter_is_pending_exactly_between_requests(run: Any, serve: Any, until: Any) -> None:
    async def scenario() -> None:
        seen: list[Connection] = []
        may_end = asyncio.Event()

        async def slow(request: web.Request) -> web.Response:
            seen.append(request.protocol)  # type: ignore[arg-type]
            await may_end.wait()
            return web.Response()

        async with serve(web.get("/hello", slow)) as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.write(GET)
            await until(lambda: seen)
            (held,) = seen
            assert held._request_count == 1
            assert not waits(held)
            assert not held._messages
            assert held.task is not None
            assert not held.task.done()
            assert [held.is_idle] == [False]
            may_end.set()
            await reader.readuntil(b"\r\n\r\n")
            await until(lambda: waits(held))
            assert held.is_idle
            writer.transport.abort()

    run(scenario())


def test_contract_messages_hold_requests_and_errors(run: Any, serve: Any) -> None:
    async def scenario() -> None:
        taken: list[tuple[object, object]] = []

        class Watching(Connection):
            def _take_body(self) -> None:
                taken.append(self._messages[-1])
                super()._take_body()

        async with serve(HELLO) as here:
            here._connect = lambda: Watching(
                here._runner.server, here, loop=asyncio.get_running_loop(), keepalive_timeout=1
            )
            server = await asyncio.get_running_loop().create_server(here._connect, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET)
            await reader.readuntil(b"hello")
            writer.write(b"\x00garbage\r\n\r\n")
            await reader.read()
            writer.close()
            server.close()
        (request, body), (error, _) = taken
        assert isinstance(request, RawRequestMessage)
        assert isinstance(body, aiohttp.StreamReader)
        assert not isinstance(error, RawRequestMessage)

    run(scenario())


def waits(held: Connection) -> bool:
    return held._waiter is not None and not held._waiter.done()


# header deadline


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /hello HTTP/1.1\r\nHost: x\r\n"], ids=["silent", "byte", "header"])
def test_a_header_that_is_not_complete_in_time(run: Any, serve: Any, talk: Any, lines: Any, sent: bytes) -> None:
    async def scenario() -> None:
        async with serve(HELLO, header_timeout=0.05) as here:
            assert await talk(here, sent) == b""
            assert here.connections == 0

    run(scenario())
    assert [line["reason"] for line in lines] == (["header_timeout"] if sent else [])


def test_dripping_bytes_win_no_time(run: Any, serve: Any, lines: Any) -> None:
    async def scenario() -> None:
        async with serve(HELLO, header_timeout=0.1) as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            began = asyncio.get_running_loop().time()
            closed = asyncio.create_task(reader.read())
            writer.write(b"GET /hello HTTP/1.1\r\nX: ")
            while not closed.done():
                writer.write(b"a")
                await asyncio.wait([closed], timeout=0.01)
            assert asyncio.get_running_loop().time() - began < 2
            await asyncio.gather(closed, return_exceptions=True)
            writer.transport.abort()

    run(scenario())
    assert [line["reason"] for line in lines] == ["header_timeout"]


def test_the_deadline_begins_anew_with_the_next_request(run: Any, serve: Any, lines: Any) -> None:
    async def scenario() -> None:
        async with serve(HELLO, header_timeout=0.05) as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            for _ in range(2):
                writer.write(GET)
                await reader.readuntil(b"hello")
                with pytest.raises(TimeoutError):  # at rest, it stays
                    await asyncio.wait_for(reader.read(1), 0.15)
            writer.write(b"GET /he")
            assert await reader.read() == b""
            writer.close()

    run(scenario())
    assert [line["reason"] for line in lines] == ["header_timeout"]


def test_a_slow_handler_is_not_the_client_s_fault(run: Any, serve: Any, lines: Any) -> None:
    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(0.15)
        return web.json_response(await read_json(request, 10))

    async def scenario() -> None:
        async with (
            serve(web.post("/slow", slow), header_timeout=0.05) as here,
            aiohttp.ClientSession() as session,
            session.post(f"http://127.0.0.1:{here.port}/slow", json=[]) as response,
        ):
            assert await response.json() == []

    run(scenario())


def test_a_connection_at_rest_is_closed(run: Any, serve: Any, lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "KEEPALIVE_TIMEOUT", 0.05)

    async def scenario() -> None:
        async with serve(HELLO) as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.write(GET)
            await reader.readuntil(b"hello")
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()

    run(scenario())
    assert lines == []


# bytes that are no HTTP

GARBAGE = {
    "noise": b"\x00\x01\x02\x03\r\n\r\n",
    "TLS on the plain port": bytes.fromhex("1603010200010001fc0303") + bytes(200),
    "MQTT on the HTTP port": bytes.fromhex("100c00044d5154540402003c0000"),
    "no such version": b"GET /hello HTTP/9.9\r\nHost: x\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "unknown method": b"BREW /hello HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": b"GET /hello HTTP/1.1\r\n\r\n",
    "bad header": b"GET /hello HTTP/1.1\r\nHost: x\r\nno colon password=s3cret\r\n\r\n",
    "NUL in a header": b"GET /hello HTTP/1.1\r\nHost: x\r\nA: s3cret\x00\r\n\r\n",
    "long line": b"GET /" + b"a" * (MAX_LINE + 1) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "long field": b"GET /hello HTTP/1.1\r\nHost: x\r\nA: " + b"a" * (MAX_LINE + 1) + b"\r\n\r\n",
    "many fields": b"GET /hello HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * (MAX_FIELDS + 1) + b"\r\n",
    "length is no number": b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n",
    "negative length": b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "bad chunk": b"POST /hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
}  # fmt: skip


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_what_is_no_http_gets_one_answer_and_one_line(run: Any, serve: Any, talk: Any, lines: Any, data: bytes) -> None:
    async def scenario() -> None:
        async with serve(HELLO, ANY) as here:
            answer = await talk(here, data)
            assert answer.split(b" ", 2)[1] == b"400", answer
            assert answer.lower().count(b"content-length") == 1
            assert b"s3cret" not in answer

    run(scenario())
    (line,) = lines
    assert (line["event"], line["protocol"], line["log_level"]) == ("http.request", "none", "info")
    assert (line["outcome"], line["reason"], line["status"]) == ("refused", "malformed", 400)
    assert line["peer"].startswith("127.0.0.1:")
    assert "s3cret" not in str(line)


def test_a_header_that_never_ends_is_cut_off(run: Any, serve: Any, talk: Any, lines: Any) -> None:
    async def scenario() -> None:
        async with serve(HELLO) as here:
            field = b"A: " + b"a" * (MAX_LINE - 100) + b"\r\n"
            parts = [field for _ in range(MAX_HEADER // len(field) + 2)]
            answer = await talk(here, b"GET /hello HTTP/1.1\r\n", *parts)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")  # a reset may overtake it
            assert here.connections == 0

    run(scenario())
    assert [line["reason"] for line in lines] == ["header_too_large"]


def test_garbage_behind_a_request_waits_for_its_turn(run: Any, serve: Any, lines: Any, until: Any) -> None:
    async def scenario() -> None:
        begun, may_end = asyncio.Event(), asyncio.Event()

        async def slow(_request: web.Request) -> web.Response:
            begun.set()
            await may_end.wait()
            return web.Response(text="hello")

        async with serve(web.get("/hello", slow)) as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.write(GET)
            await begun.wait()
            writer.write(b"\x00\r\n\r\n")
            (held,) = here._open
            await until(lambda: held._messages)
            may_end.set()
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200 OK")
            assert b" 400 Bad Request" in answer
            writer.close()

    run(scenario())
    assert [line["reason"] for line in lines] == ["malformed"]


def test_a_broken_body_that_nobody_reads(run: Any, serve: Any, lines: Any, until: Any) -> None:
    async def scenario() -> None:
        begun, may_end = asyncio.Event(), asyncio.Event()

        async def ignores(_request: web.Request) -> web.Response:
            begun.set()
            await may_end.wait()
            return web.Response(text="hello")

        async with serve(web.post("/hello", ignores)) as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.write(b"POST /hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            await begun.wait()
            writer.write(b"zz\r\n")
            (held,) = here._open
            await until(lambda: held._last)
            may_end.set()
            answer = await asyncio.wait_for(reader.read(), 5)
            assert answer.startswith(b"HTTP/1.1 200 OK")
            assert b"connection: close" in answer.lower()
            assert answer.endswith(b"hello")
            writer.close()

    run(scenario())
    assert lines == []


def test_any_bytes_leave_the_site_alive(
    *, run: Any, serve: Any, talk: Any, lines: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LINGER", 0.01)
    monkeypatch.setattr(site, "KEEPALIVE_TIMEOUT", 0.03)
    dice = random.Random(20_260)
    words = [
        b"GET ", b"POST ", b"CONNECT ", b"OPTIONS * ", b"/hello", b"/%", b"http://[", b"*", b" HTTP/1.1\r\n",
        b" HTTP/1.0\r\n",
        b"Host: x\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Expect: 100-continue\r\n",
        b"Upgrade: websocket\r\nConnection: upgrade\r\n", b"Content-Encoding: gzip\r\n", b"Content-Type: \xff\r\n",
        b"\r\n",
        b"\xff", b"\x00", b"5\r\nhello\r\n", b"0\r\n\r\n", b"Connection: close\r\n", b"\n", b":", b"Cookie: \xe9=;\r\n",
    ]  # fmt: skip

    async def reads(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    def refuse(refusal: Refusal) -> web.Response:
        return web.Response(status=400, text=str(refusal))

    async def scenario() -> None:
        route = web.route("*", "/hello", operation("test", "hello", reads, refuse))
        async with serve(route, header_timeout=0.03, request_timeout=0.05) as here:
            for _ in range(25):
                batch = [b"".join(dice.choices(words, k=dice.randint(1, 12))) for _ in range(16)]
                whole = [b"POST /hello HTTP/1.1\r\nHost: x\r\n" + data + b"\r\n" for data in batch[:4]]
                await asyncio.gather(*(talk(here, data) for data in batch + whole))
            assert (await talk(here, GET.replace(b"x\r\n", b"x\r\nConnection: close\r\n"))).startswith(b"HTTP/1.1 200")

    run(scenario())
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# answers


def test_an_answer_that_nobody_reads_is_given_up(run: Any, serve: Any, lines: Any, until: Any) -> None:
    async def endless(_request: web.Request) -> web.Response:
        return web.Response(body=bytes(50_000_000))

    async def scenario() -> None:
        async with serve(web.get("/hello", endless), request_timeout=0.1) as here:
            _, writer = await asyncio.open_connection("127.0.0.1", here.port, limit=1)
            writer.write(GET)
            await until(lambda: here.connections == 1)
            await until(lambda: here.connections == 0)
            writer.transport.abort()

    run(scenario())


def test_a_second_answer_never_follows_half_of_the_first(run: Any, serve: Any, talk: Any, lines: Any) -> None:
    async def breaks(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        raise ZeroDivisionError

    async def scenario() -> None:
        async with serve(web.get("/hello", breaks)) as here:
            answer = await talk(here, GET)
            assert answer.count(b"HTTP/1.1") <= 1
            assert b"internal error" not in answer

    run(scenario())
    (line,) = lines
    assert isinstance(line["exc_info"], ZeroDivisionError)
