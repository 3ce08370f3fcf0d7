"""broker/tls.py: what a handshake is to the listener. With certificates of devices: tests/provisioning/test_tls.py."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import LogCapture

from broker import embedded, packets
from broker.embedded import EmbeddedBroker
from broker.listener import Limits, Listener
from broker.sessions import Sessions
from provisioning import handshake
from provisioning.model.admission import SessionLimits
from provisioning.model.mqtt import Connect, Message, Peer
from tests import peers
from tests.broker.door import SYS, Door, Judge
from tests.conftest import until
from tests.devices import Raw

pytestmark = pytest.mark.server

Open = Callable[..., Awaitable[Listener]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files")
    peers.write(path / "server.pem", peers.leaf("server", "localhost"))
    peers.write(path / "device.pem", peers.leaf("device"))
    return path


@pytest.fixture
def seen() -> list[Peer]:
    """Who sent a CONNECT."""
    return []


@pytest.fixture
def judge() -> Judge:
    return Judge()


@pytest.fixture
async def secure(
    files: Path, judge: Judge, seen: list[Peer], lines: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Open]:
    """Open a listener with two-way TLS: `await secure(max_connections=2)`."""
    from broker import listener

    monkeypatch.setattr(handshake, "log", listener.log)

    def admit(connect: Connect, peer: Peer) -> Any:
        seen.append(peer)
        return judge.decide(connect)

    async with AsyncExitStack() as stack:

        async def start(**limits: Any) -> Listener:
            behind = EmbeddedBroker(embedded.Limits())
            await behind.start()
            stack.push_async_callback(behind.shutdown)
            ours = Listener(
                admit, behind, Sessions(), Limits(**limits), came=lambda _: None, went=lambda _: None,
                on_acknowledged=lambda _: None,
            )  # fmt: skip
            await ours.start("127.0.0.1", 0, peers.server(files / "server.pem", ssl.CERT_REQUIRED))
            stack.push_async_callback(ours.stop)
            return ours

        yield start


async def client(listener: Listener, files: Path) -> Raw:
    context = peers.client(files / "device.pem")
    return Raw(*await asyncio.open_connection("127.0.0.1", listener.port, ssl=context, server_hostname="localhost"))


async def test_the_certificate_is_that_of_the_connection(secure: Open, seen: list[Peer], files: Path) -> None:
    device = await client(await secure(), files)
    assert (await device.login(Door.connect())).code == 0
    (peer,) = seen
    text = (files / "device.pem").read_text()
    assert (peer.tls, peer.certificate) == (
        True, ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN CERTIFICATE") :]),
    )  # fmt: skip
    device.abort()


async def test_a_failure_is_told_as_a_login(secure: Open, lines: LogCapture, tmp_path: Path) -> None:
    listener = await secure(connect_timeout=0.2)
    come, why = peers.bad_clients(tmp_path)["half a hello"]
    await come(listener.port)
    await until(lambda: lines.entries, "its line")
    line = dict(lines.entries[0])
    assert line.pop("peer").startswith("127.0.0.1:")
    assert line == {
        "event": "mqtt.login", "protocol": "none", "outcome": "refused", "reason": "tls", "tls": why,
        "log_level": "info",
    }  # fmt: skip
    await until(lambda: not (listener.connections or listener.per_address), "it to leave")


@pytest.mark.parametrize("limit", ["max_connections", "max_per_address"])
async def test_handshakes_count_as_connections(secure: Open, lines: LogCapture, files: Path, limit: str) -> None:
    listener = await secure(**{limit: 2})
    hanging = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(2)]
    await until(lambda: listener.per_address["127.0.0.1"] == 2, "two handshakes")
    with pytest.raises((ConnectionError, ssl.SSLError)):
        await client(listener, files)
    assert [line["event"] for line in lines.entries] == ["mqtt.overload"]
    for _, writer in hanging:
        writer.close()
    await until(lambda: not listener.connections, "them to leave")
    device = await client(listener, files)
    assert (await device.login(Door.connect())).code == 0
    assert len(listener.connections) == 1, "the handshake has left, the connection is there"
    device.abort()


async def test_stop_cuts_handshakes(secure: Open, lines: LogCapture) -> None:
    listener = await secure()
    clients = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(3)]
    clients[0][1].write(peers.hello(b"localhost"))
    await until(lambda: len(listener.connections) == 3, "three handshakes")
    await asyncio.wait_for(listener.stop(), 2)
    assert not listener.connections
    assert not listener.per_address
    for reader, writer in clients:
        with suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 2)
        writer.close()
    assert lines.entries == []


@pytest.mark.parametrize(("up", "messages"), [(30, 100), (0, 2_000)], ids=["more than its pace", "more than a turn"])
async def test_what_came_before_the_end_is_served(
    secure: Open, judge: Judge, files: Path, up: int, messages: int
) -> None:
    """TLS brings the end of the stream along with the data: who publishes and goes has published."""
    judge.limits = SessionLimits(up=up)
    listener = await secure()
    device = await client(listener, files)
    assert (await device.login(Door.connect())).code == 0
    publish = packets.write_publish(Message(f"{SYS}thing/x", b"1"), level=4)
    device.send(publish * messages + packets.write_disconnect(level=4))
    await device.close()
    await until(lambda: not listener.connections, "the end")
    assert listener.totals.received == messages
