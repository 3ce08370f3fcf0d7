"""provisioning/web/site.py"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from provisioning.metrics import Metrics
from provisioning.sections import Http
from provisioning.web import site as module
from provisioning.web.operation import METRICS
from provisioning.web.site import Site
from tests import peers

pytestmark = pytest.mark.server

GET = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"


async def hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


HELLO = web.get("/hello", hello)


def empty(**settings: Any) -> Site:
    app = web.Application()
    app[METRICS] = Metrics()
    app.add_routes([HELLO])
    return Site(app, host="127.0.0.1", port=0, settings=Http(**settings))


def test_serves_on_the_port_that_it_names(run: Any, serve: Any, lines: Any, until: Any) -> None:
    async def scenario() -> None:
        async with serve(HELLO) as site:
            assert site.port > 0
            assert site.connections == 0
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(GET)
            assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200 OK\r\n")
            assert site.connections == 1
            writer.close()
            await until(lambda: site.connections == 0)

    run(scenario())
    assert lines == []


def test_a_port_that_is_taken(run: Any) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            app = web.Application()
            app[METRICS] = Metrics()
            ended: list[bool] = []
            app.on_cleanup.append(lambda _app: _note(ended))
            site = Site(app, host="127.0.0.1", port=taken.getsockname()[1], settings=Http())
            with pytest.raises(OSError, match="in use"):
                await site.start()
            await site.stop()
            assert ended == [True]

    async def _note(ended: list[bool]) -> None:
        ended.append(True)

    run(scenario())


def test_connections_beyond_the_cap_are_closed_at_once(
    run: Any, serve: Any, lines: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REPORT_INTERVAL", 0.05)

    async def scenario() -> None:
        async with serve(HELLO, max_connections=2) as site:
            kept = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(2)]
            await until(lambda: site.connections == 2)
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
                with suppress(ConnectionError):
                    assert await asyncio.wait_for(reader.read(), 5) == b""
                writer.transport.abort()
            assert site.connections == 2
            await until(lambda: sum(line["turned_away"] for line in lines) == 5)
            for reader, writer in kept:
                writer.write(GET)
                await reader.readuntil(b"hello")
            kept.pop()[1].close()
            await until(lambda: site.connections == 1)
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(GET)
            await reader.readuntil(b"hello")
            for each in (writer, *(writer for _, writer in kept)):
                each.close()

    run(scenario())
    assert {line["event"] for line in lines} == {"http.overload"}
    assert len(lines) < 5


def test_overload_is_said_at_most_once_per_interval(run: Any, serve: Any, lines: Any, until: Any) -> None:
    async def scenario() -> None:
        async with serve(HELLO, max_connections=1) as site:
            _, kept = await asyncio.open_connection("127.0.0.1", site.port)
            await until(lambda: site.connections == 1)
            for _ in range(10):
                reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
                await asyncio.wait([asyncio.create_task(reader.read())])
                writer.transport.abort()
            assert [line["turned_away"] for line in lines] == [1]
            kept.close()

    run(scenario())
    assert [line["turned_away"] for line in lines] == [1, 9]  # the rest is said when the site stops


def test_stop_lets_a_request_end_and_closes_the_idle(run: Any, lines: Any) -> None:
    async def scenario() -> None:
        begun = asyncio.Event()

        async def slow(request: web.Request) -> web.Response:
            begun.set()
            return web.Response(text=f"got {len(await request.read())}")

        app = web.Application()
        app[METRICS] = Metrics()
        app.add_routes([HELLO, web.post("/slow", slow)])
        site = Site(app, host="127.0.0.1", port=0, settings=Http())
        await site.start()
        idle_reader, idle = await asyncio.open_connection("127.0.0.1", site.port)
        idle.write(GET)
        await idle_reader.readuntil(b"hello")
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
        await begun.wait()
        stopping = asyncio.create_task(site.stop())
        assert await asyncio.wait_for(idle_reader.read(), 5) == b""
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(b"cd")
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.endswith(b"got 4")
        assert b"connection: close" in answer.lower()
        await asyncio.wait_for(stopping, 5)
        assert site.connections == 0
        for each in (idle, writer):
            each.close()

    run(scenario())
    assert lines == []


def test_stop_ends_what_does_not_end_by_itself(
    run: Any, lines: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE", 0.05)
    monkeypatch.setattr(module, "LAST_CALL", 0.05)
    ended = []

    async def stuck(_request: web.Request) -> web.Response:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(20):  # a roll-back takes its time
                await asyncio.sleep(0)
            ended.append(True)
        return web.Response()

    async def scenario() -> None:
        app = web.Application()
        app[METRICS] = Metrics()
        app.add_routes([web.get("/hello", stuck)])
        site = Site(app, host="127.0.0.1", port=0, settings=Http())
        await site.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(GET)
        await until(lambda: site._open and not next(iter(site._open)).is_idle)
        await asyncio.wait_for(site.stop(), 5)
        assert ended == [True]
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()

    run(scenario())
    assert [line["event"] for line in lines] == ["http.cut_off"]


def test_stop_may_be_repeated_and_may_come_first(run: Any) -> None:
    async def scenario() -> None:
        site = empty()
        await site.stop()
        other = empty()
        await other.start()
        await other.stop()
        await other.stop()

    run(scenario())


def test_many_requests_over_many_connections(run: Any, serve: Any, lines: Any) -> None:
    async def scenario() -> None:
        async with serve(HELLO) as site, aiohttp.ClientSession() as session:

            async def get() -> str:
                async with session.get(f"http://127.0.0.1:{site.port}/hello") as response:
                    return await response.text()

            assert set(await asyncio.gather(*(get() for _ in range(300)))) == {"hello"}

    run(scenario())


def test_pipelined_requests_are_answered_in_order(run: Any, serve: Any, talk: Any, lines: Any) -> None:
    async def count(request: web.Request) -> web.Response:
        return web.Response(text=f"<{request.match_info['n']}>")

    async def scenario() -> None:
        async with serve(web.get("/{n}", count)) as site:
            requests = [b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(99)]
            last = b"GET /99 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            answer = (await talk(site, b"".join([*requests, last]))).decode()
            assert [int(part.partition(">")[0]) for part in answer.split("<")[1:]] == list(range(100))

    run(scenario())


# --- over TLS ---


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files")
    peers.write(path / "server.pem", peers.leaf("server", "localhost"))
    peers.write(path / "device.pem", peers.leaf("device"))
    return path


@asynccontextmanager
async def secure(
    files: Path,
    *routes: web.RouteDef,
    verify: ssl.VerifyMode = ssl.CERT_OPTIONAL,
    others: Mapping[str, Callable[[], asyncio.Protocol]] | None = None,
    alpn: Sequence[str] = (),
    **settings: Any,
) -> AsyncIterator[Site]:
    app = web.Application()
    app[METRICS] = Metrics()
    app.add_routes([HELLO, *routes])
    context = peers.server(files / "server.pem", verify)
    if alpn:
        context.set_alpn_protocols(alpn)
    site = Site(app, host="127.0.0.1", port=0, settings=Http(**settings), ssl_context=context, others=others)
    await site.start()
    try:
        yield site
    finally:
        await asyncio.wait_for(site.stop(), 5)


async def get(site: Site, context: ssl.SSLContext, path: str = "/hello") -> str:
    connector = aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver())
    url = f"https://localhost:{site.port}{path}"
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url, ssl=context) as response:
        return await response.text()


def test_tls(run: Any, lines: Any, files: Path) -> None:
    async def shown(request: web.Request) -> web.Response:
        assert request.transport is not None
        certificate = request.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return web.Response(text=f"{request.scheme} {len(certificate or b'')}")

    async def scenario() -> None:
        async with secure(files, web.get("/shown", shown)) as site:
            assert await get(site, peers.client()) == "hello"
            assert await get(site, peers.client(), "/shown") == "https 0"
            size = len(ssl.PEM_cert_to_DER_cert(_certificate(files / "device.pem")))
            assert await get(site, peers.client(files / "device.pem"), "/shown") == f"https {size}"

    run(scenario())
    assert lines == []


class Echo(asyncio.Protocol):
    """Something else than HTTP."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def test_others_are_served_by_what_alpn_has_agreed_on(run: Any, lines: Any, until: Any, files: Path) -> None:
    async def scenario() -> None:
        async with secure(files, others={"echo": Echo}, alpn=["http/1.1", "echo", "else"]) as site:
            http = b"HTTP/1.0 400"
            for offered, served in (
                (["echo"], b"hi"), (["other", "echo"], b"hi"), (["echo", "http/1.1"], http), (["else"], http),
                ([], http),
            ):  # fmt: skip
                context = peers.client()
                if offered:
                    context.set_alpn_protocols(offered)
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", site.port, ssl=context, server_hostname="localhost"
                )
                writer.write(b"hi\r\n\r\n")
                assert (await reader.readexactly(len(served))) == served, offered
                writer.transport.abort()
            await until(lambda: site.connections == 0)

    run(scenario())
    assert [line["event"] for line in lines] == ["http.request"] * 3


def _certificate(path: Path) -> str:
    text = path.read_text()
    return text[text.index("-----BEGIN CERTIFICATE") :]


def test_each_handshake_that_fails_leaves_one_line(run: Any, lines: Any, until: Any, files: Path) -> None:
    async def scenario() -> None:
        async with secure(files, verify=ssl.CERT_REQUIRED, header_timeout=0.3) as site:
            for number, (kind, (come, why)) in enumerate(peers.bad_clients(files).items(), 1):
                await come(site.port)
                await until(lambda number=number: len(lines) == number)
                line = lines[-1]
                assert line.pop("peer").startswith("127.0.0.1:")
                assert line == {
                    "event": "http.request", "protocol": "none", "outcome": "refused", "reason": "tls", "tls": why,
                    "log_level": "info",
                }, kind  # fmt: skip
            await until(lambda: site.connections == 0)

    run(scenario())


def test_handshakes_count_as_connections(run: Any, lines: Any, until: Any, files: Path) -> None:
    async def scenario() -> None:
        async with secure(files, max_connections=2) as site:
            hanging = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(2)]
            await until(lambda: site.connections == 2)
            with pytest.raises(aiohttp.ClientConnectionError):
                await get(site, peers.client())
            for _, writer in hanging:
                writer.close()
            await until(lambda: site.connections == 0)
            assert await get(site, peers.client()) == "hello"

    run(scenario())
    assert [line["event"] for line in lines] == ["http.overload", "http.request", "http.request"]
    assert (lines[0]["turned_away"], lines[0]["limit"]) == (1, 2)


def test_stop_cuts_handshakes_and_lets_requests_end(run: Any, lines: Any, until: Any, files: Path) -> None:
    async def scenario() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow(_request: web.Request) -> web.Response:
            begun.set()
            await go_on.wait()
            return web.Response(text="done")

        async with secure(files, web.get("/slow", slow)) as site:
            request = asyncio.create_task(get(site, peers.client(), "/slow"))
            await begun.wait()
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            await until(lambda: site.connections == 2)
            stopping = asyncio.create_task(site.stop())
            assert await asyncio.wait_for(reader.read(), 2) == b"", "the handshake is cut"
            writer.close()
            with pytest.raises(ConnectionError):
                await asyncio.open_connection("127.0.0.1", site.port)
            assert not stopping.done()
            go_on.set()
            assert await asyncio.wait_for(request, 5) == "done"
            await asyncio.wait_for(stopping, 5)
            assert site.connections == 0

    run(scenario())
    assert lines == []


def test_stop_with_nothing_but_handshakes_waits_for_none(run: Any, lines: Any, until: Any, files: Path) -> None:
    async def scenario() -> None:
        async with secure(files) as site:
            clients = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(3)]
            await until(lambda: site.connections == 3)
            await asyncio.wait_for(site.stop(), 2)
            assert site.connections == 0
            for reader, writer in clients:
                assert await asyncio.wait_for(reader.read(), 2) == b""
                writer.close()

    run(scenario())
    assert lines == []


def test_a_port_that_is_taken_under_tls(run: Any, files: Path) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            app = web.Application()
            app[METRICS] = Metrics()
            context = peers.server(files / "server.pem")
            site = Site(app, host="127.0.0.1", port=taken.getsockname()[1], settings=Http(), ssl_context=context)
            with pytest.raises(OSError, match="in use"):
                await site.start()
            await site.stop()

    run(scenario())
