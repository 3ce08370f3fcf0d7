"""The whole life of a device with the running program, from its first registration to its deletion: section 8."""

import asyncio
import hashlib
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from cryptography import x509

from broker.packets import Connack, Puback
from provisioning.model.mqtt import Connect
from provisioning.protocols.ioto import wire
from tests.conftest import Spawn, service_environment
from tests.devices import Raw
from tests.provisioning.cli.conftest import Command
from tests.provisioning.cli.conftest import command as run_command
from tests.provisioning.protocols.ioto.conftest import DEVICE, TOKEN, Agent, Reply

pytestmark = pytest.mark.server

command = run_command

IMAGE = b"firmware-1.4.0"
CHECKSUM = "41bb20919c5d1d1eb2299079216a300c0fcbf4c5e2ebf0e418ea15919f07fe7f"
OWN = f"ioto/device/{DEVICE}/"


@asynccontextmanager
async def connected(port: int, context: ssl.SSLContext, host: str) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


def context_of(given: dict[str, Any], anchors: str, directory: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=anchors)
    context.set_alpn_protocols(["x-amzn-mqtt-ca"])
    path = directory / "agent.pem"
    path.write_text(given["key"] + given["certificate"])
    context.load_cert_chain(path)
    return context


def connect() -> Connect:
    return Connect(level=4, client_id=DEVICE, username=None, password=None, clean=False, keepalive=1_200)


async def code(port: int, context: ssl.SSLContext) -> int:
    async with connected(port, context, "localhost") as client:
        return (await client.login(connect())).code


async def test_the_life_of_a_device(spawn: Spawn, command: Command, database_url: str, tmp_path: Path) -> None:
    process = await spawn("serve", **service_environment(database_url))
    ready = await process.ready()
    ports: Any = SimpleNamespace(http=SimpleNamespace(port=ready["http"]))
    await command("product", "create", TOKEN, "--protocol", "ioto", "--name", "Sensor")
    async with aiohttp.ClientSession(skip_auto_headers={"Content-Type"}) as session:
        agent = Agent(session, ports)  # all that it uses of a service

        async def checkin(token: str, **fields: Any) -> Reply:
            return await agent.checkin(token, id=DEVICE, product=TOKEN, **fields)

        # registered, and claimed by an administrator
        assert (await agent.register()).text == '{"registered":true}'
        claimed = await command("claim", DEVICE, "--account", "ACC1", "--cloud", "main")
        assert claimed.out == f"{DEVICE} belongs to account ACC1\n"
        registered = (await agent.register()).body
        token = registered.pop("token")
        assert registered == {
            "registered": True, "api": f"http://127.0.0.1:{ready['http']}", "id": DEVICE, "cloudType": "hosted",
            "cloudName": "main", "cloudRegion": "local",
        }  # fmt: skip

        # provisioned
        given = (await agent.get_certs(token)).body
        assert (given["endpoint"], given["port"]) == ("localhost", ready["mqtts"])
        assert (given["id"], given["thing"], given["accountId"]) == (DEVICE, DEVICE, "ACC1")
        assert x509.load_pem_x509_certificate(given["certificate"].encode()).subject.rfc4514_string() == (
            f"CN={DEVICE},OU={wire.product_key(TOKEN)}"
        )
        async with session.get(f"http://127.0.0.1:{ready['http']}/pki/gatehouse-1/ca.pem") as response:
            anchors = await response.text()
        context = context_of(given, anchors, tmp_path)

        # connected
        async with connected(given["port"], context, given["endpoint"]) as client:
            assert await client.login(connect()) == Connack(session_present=False, code=0)
            topics = (f"{OWN}#", "ioto/account/all/#", "ioto/account/ACC1/#")
            assert await client.subscribe(*((topic, 1) for topic in topics)) == (1, 1, 1)
            client.publish(f"ioto/service/{DEVICE}/db", b"{}", qos=1)
            assert await client.read() == Puback(7)

            # updated
            assert (await checkin(token, version="1.3.0")).body == {"message": "No update available"}
            image = tmp_path / "firmware.bin"
            image.write_bytes(IMAGE)
            await command("update", "publish", str(image), "--product", TOKEN, "--version", "1.4.0")
            offer = (await checkin(token, version="1.3.0")).body
            assert (offer["checksum"], offer["version"], offer["update"]) == (CHECKSUM, "1.4.0", "upd1")
            async with session.get(offer["url"]) as response:
                assert (response.status, response.headers["Content-Length"]) == (200, str(len(IMAGE)))
                assert hashlib.sha256(await response.read()).hexdigest() == CHECKSUM
            report = {"id": DEVICE, "update": "upd1", "success": True}
            assert (await agent.post("/tok/provision/updateReport", report, f"bearer {token}")).body == {}
            assert (await checkin(token, version="1.4.0")).body == {"message": "No update available"}
            shown = (await command("update", "show", "upd1", "--json", "--protocol", "ioto")).row
            assert (shown["offered"], shown["succeeded"], shown["failed"]) == (1, 1, 0)

            # released
            assert (await command("release", DEVICE, "--yes")).out == f"{DEVICE} is released\n"
            told = (await client.read_publish()).message
            assert told.topic == f"{OWN}provision/release"
            assert re.fullmatch(rb"[0-9]{13}", told.payload)
            assert await client.read() is None
        (await checkin(token)).refused(403, "Authentication failed")
        (await agent.get_certs(token)).refused(400, "Device not claimed")
        assert await code(given["port"], context) == 5
        assert (await agent.register()).text == '{"registered":true}', "it begins again"

        # claimed once more, and deleted
        await command("claim", DEVICE, "--account", "ACC2")
        second = (await agent.register()).body["token"]
        assert (await checkin(second)).status == 200
        await command("device", "delete", TOKEN, DEVICE, "--protocol", "ioto", "--yes")
        for old in (token, second):
            (await checkin(old)).refused(400, "Cannot find device")
        assert await code(given["port"], context) == 4
    assert process.errors == []
    text = "\n".join(process.lines)
    for secret in (TOKEN, token, second, given["key"].splitlines()[1]):
        assert secret not in text, "a secret in the log"
    process.process.terminate()
    assert await process.wait(10) == 0
