"""provisioning/web/site.py"""

import asyncio
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from provisioning.metrics import Metrics
from provisioning.settings import Http
from provisioning.web import site as module
from provisioning.web.operation import METRICS
from provisioning.web.site import Site

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


def test_tls(run: Any, lines: Any, tmp_path: Path) -> None:
    server, client = _contexts(tmp_path)

    async def scenario() -> None:
        app = web.Application()
        app[METRICS] = Metrics()
        app.add_routes([HELLO])
        site = Site(app, host="127.0.0.1", port=0, settings=Http(header_timeout=0.3), ssl_context=server)
        await site.start()
        try:
            url = f"https://127.0.0.1:{site.port}/hello"
            async with aiohttp.ClientSession() as session, session.get(url, ssl=client) as response:
                assert await response.text() == "hello"
            # a client that never speaks TLS is let go
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
        finally:
            await asyncio.wait_for(site.stop(), 5)

    run(scenario())


def _contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "both.pem").write_bytes(secret + certificate)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "both.pem")
    return server, ssl.create_default_context(cadata=certificate.decode())
