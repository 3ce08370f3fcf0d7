"""MQTT of agents beside HTTPS, by ALPN: reference, sections 5 and 7."""

import asyncio
import ssl

import pytest

from broker import packets
from tests.conftest import Serve
from tests.devices import Raw
from tests.provisioning.protocols.ioto.conftest import ALPN, CONNECT, DEVICE, Fleet, connect

pytestmark = pytest.mark.server

OWN = f"ioto/device/{DEVICE}/"
RELEASE = f"{OWN}provision/release"


async def test_mqtt_by_alpn_on_every_tls_port(fleet: Fleet) -> None:
    """What stands on the HTTPS port is an ordinary session: it can be ended, and is told so."""
    await fleet.issue()
    running = fleet.running
    for port in (running.mqtts.port, running.more_ports["mqtts_more"][0], running.https.port):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=fleet.context(), server_hostname="localhost"
        )
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == ALPN
        client = Raw(reader, writer)
        assert (await client.login(connect())).code == 0
        assert (await client.subscribe((f"{OWN}#", 1), ("#", 1))) == (1, 0x80)
        writer.transport.abort()
        await fleet.ended()
    async with fleet.session(port=running.https.port) as client:
        await fleet.release()
        assert (await client.read_publish()).message.topic == RELEASE
        assert await client.read() is None
    assert await fleet.code(port=running.https.port) == 5
    assert await fleet.code(file=None, port=running.https.port) == 4, "MQTT, and no certificate"


async def test_openssl_as_an_agent(fleet: Fleet) -> None:
    """Host name and authority are verified, the certificate is shown, ALPN is offered: one byte stream, as it is."""
    await fleet.issue()
    anchors, own = fleet.directory / "anchors.pem", fleet.directory / DEVICE
    anchors.write_text(fleet.anchors)
    for port, present in ((fleet.running.mqtts.port, False), (fleet.running.https.port, True)):
        process = await asyncio.create_subprocess_exec(
            "openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-alpn", ALPN,
            "-CAfile", str(anchors), "-verify_return_error", "-verify_hostname", "localhost", "-cert", str(own),
            "-key", str(own), "-nocommands", "-ign_eof",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(CONNECT)
            connack = packets.write_connack(0, level=4, session_present=present)
            said = await asyncio.wait_for(process.stdout.readuntil(connack), 10)
            assert f"ALPN protocol: {ALPN}".encode() in said
            process.stdin.write(packets.write_subscribe(1, [(f"{OWN}#", 1)], 4))
            await asyncio.wait_for(process.stdout.readuntil(bytes.fromhex("9003000101")), 10)
        finally:
            process.kill()
            await process.wait()


async def test_https_is_what_it_was_for_everybody_else(fleet: Fleet) -> None:
    await fleet.issue()
    port = fleet.running.https.port
    for alpn in ((), ("http/1.1",), ("http/1.1", ALPN), ("h2", "http/1.1")):
        context = ssl.create_default_context(cadata=fleet.anchors)
        if alpn:
            context.set_alpn_protocols(alpn)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200"), alpn
        writer.close()
    context = fleet.context(DEVICE, "http/1.1")
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    writer.write(CONNECT)
    assert (await reader.read()).startswith(b"HTTP/1.0 400"), "MQTT where HTTP was agreed on"
    writer.close()
    async with fleet.client(port=port) as client:
        client.send(b"GET /readyz HTTP/1.1\r\n\r\n")
        assert await client.read() is None, "HTTP where MQTT was agreed on"


async def test_a_stop_ends_sessions_on_the_https_port(serve: Serve, fleet: Fleet) -> None:
    await fleet.issue()
    async with fleet.session(port=fleet.running.https.port) as client:
        assert await client.subscribe((f"{OWN}#", 1)) == (1,)
        stopping = asyncio.create_task(fleet.running.https.stop())
        await asyncio.wait_for(stopping, 5)
        assert await client.ping() == [], "it is the MQTT listener's"
        await asyncio.wait_for(fleet.running.mqtts.stop(), 5)
        assert await client.read() is None
