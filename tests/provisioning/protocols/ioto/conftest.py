"""A service with a product, an agent that speaks to it, and agents that connect with the certificates it gives."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from provisioning.app import Running
from provisioning.core import ca, claims, pki
from provisioning.model.mqtt import Connect, Message
from provisioning.model.registry import Device
from provisioning.protocols.ioto import wire
from tests.conftest import Serve, load_rows, until
from tests.devices import Raw

TOKEN = "01HQ5T0KENF0RPR0DUCT0000AB"
OTHER_TOKEN = "another"
USER_TOKEN = "user-0123456789abcdef"
DEVICE = "CLAIM00001"
PRODUCT: dict[str, object] = {"type": "product", "protocol": "ioto", "productToken": TOKEN, "name": "Sensor"}
OTHER_PRODUCT: dict[str, object] = {"type": "product", "protocol": "ioto", "productToken": OTHER_TOKEN}
API = "https://iot.example.org"
ALPN = "x-amzn-mqtt-ca"
CONNECT = bytes.fromhex("101600044d51545404 00 04b0 000a") + DEVICE.encode()
"""As agents send it: level 4, flags 0x00, keepalive 1200, the client id and nothing behind it."""

Lines = list[Any]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The structured log of this process, while the test runs."""
    before = structlog.get_config()
    structlog.reset_defaults()  # another test may have set a level
    with structlog.testing.capture_logs() as captured:
        yield captured
    structlog.configure(**before)


@dataclass(frozen=True)
class Reply:
    status: int
    text: str
    content_type: str

    @property
    def body(self) -> Any:
        assert (self.status, self.content_type) == (200, "application/json"), self.text
        return json.loads(self.text)

    def refused(self, status: int, text: str) -> None:
        assert (self.status, self.content_type, self.text) == (status, "text/plain", text)


class Agent:
    """A device with an HTTP library; `running` may be exchanged."""

    def __init__(self, session: aiohttp.ClientSession, running: Running) -> None:
        self.session = session
        self.running = running

    async def post(self, path: str, body: Any = b"", authorization: str | None = None, **headers: str) -> Reply:
        """`body` is sent as it is when it is bytes, else as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body, indent=4).encode()
        sent = {"Content-Type": "application/json"} | headers
        if authorization is not None:
            sent["Authorization"] = authorization
        url = f"http://127.0.0.1:{self.running.http.port}{path}"
        async with self.session.post(url, data=data, headers=sent) as response:
            return Reply(response.status, await response.text(), response.content_type)

    async def register(self, device: str = DEVICE, token: str = TOKEN, **more: Any) -> Reply:
        body = {"product": token, "name": "Dev", "model": "m1", "id": device, "created": "2024-01-01T00:00:00.000Z"}
        return await self.post("/api/device/register", body | more, f"bearer {token}")

    async def claimed(self, device: str = DEVICE) -> str:
        """Register and claim: the token."""
        reply = await self.register(device, account="ACC1", cloud="main")
        token: str = reply.body["token"]
        return token

    async def checkin(self, token: str, **fields: Any) -> Reply:
        return await self.post("/tok/provision/update", fields, f"bearer {token}")

    async def get_certs(self, token: str, device: str = DEVICE) -> Reply:
        return await self.post("/tok/provision/getCerts", {"id": device}, f"bearer {token}")


@pytest.fixture
async def running(serve: Serve) -> Running:
    service = await serve(ioto={"api": API, "mqtt_host": "mqtt.example.org", "user_token": USER_TOKEN})
    await load_rows(service, PRODUCT, OTHER_PRODUCT)
    return service


@pytest.fixture
async def agent(running: Running) -> AsyncIterator[Agent]:
    async with aiohttp.ClientSession(skip_auto_headers={"Content-Type"}) as session:
        yield Agent(session, running)


async def kinds(running: Running) -> list[str]:
    """What has happened to devices, in order."""
    async with running.database.read() as tx:
        found = await tx.db.fetch("SELECT kind FROM event WHERE kind LIKE 'device.%' ORDER BY id")
    return [row["kind"] for row in found]


# --- over MQTT ---


def connect(client_id: str = DEVICE, **more: Any) -> Connect:
    fields: dict[str, Any] = {"level": 4, "username": None, "password": None, "clean": False, "keepalive": 1_200} | more
    return Connect(client_id=client_id, **fields)


@dataclass
class Fleet:
    """Agents with the certificates that a service has given them."""

    running: Running
    agent: Agent
    directory: Path
    anchors: str

    async def issue(self, device: str = DEVICE, **more: Any) -> str:
        """Register, claim, getCerts: the device's token. Its certificate is in the file named like it."""
        reply = await self.agent.register(device, **({"account": "ACC1", "cloud": "main"} | more))
        token: str = reply.body["token"]
        await self.renew(token, device)
        return token

    async def renew(self, token: str, device: str = DEVICE, file: str = "") -> None:
        given = (await self.agent.get_certs(token, device)).body
        (self.directory / (file or device)).write_text(given["key"] + given["certificate"])

    def context(self, file: str | None = DEVICE, *alpn: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.anchors)
        context.set_alpn_protocols(alpn or [ALPN])
        if file:
            context.load_cert_chain(self.directory / file)
        return context

    @asynccontextmanager
    async def client(
        self, file: str | None = DEVICE, *, port: int = 0, context: ssl.SSLContext | None = None
    ) -> AsyncIterator[Raw]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port or self.running.mqtts.port, ssl=context or self.context(file), server_hostname="localhost"
        )
        try:
            yield Raw(reader, writer)
        finally:
            writer.transport.abort()

    @asynccontextmanager
    async def session(self, device: str = DEVICE, *, port: int = 0) -> AsyncIterator[Raw]:
        """An agent that is logged in."""
        async with self.client(device, port=port) as client:
            answer = await client.login(connect(device))
            assert answer.code == 0, f"CONNACK {answer.code}"
            yield client

    async def code(self, wanted: Connect | None = None, file: str | None = DEVICE, port: int = 0) -> int:
        """The CONNACK code; after a refusal the connection must end."""
        async with self.client(file, port=port) as client:
            code = (await client.login(wanted or connect())).code
            assert code == 0 or await client.is_closed()
            return code

    async def becomes(self, code: int, wanted: Connect | None = None, file: str = DEVICE) -> None:
        async def is_it() -> bool:
            return await self.code(wanted, file) == code

        await until(is_it, f"CONNACK {code}")

    async def device(self, key: str = DEVICE) -> Device:
        async with self.running.database.read() as tx:
            return await claims.device(tx, wire.PROTOCOL, key)

    async def release(self, key: str = DEVICE) -> None:
        device = await self.device(key)
        async with self.running.database.begin() as tx:
            await claims.release(tx, device, now=datetime.now(UTC))

    async def change(self, verb: Callable[..., Awaitable[Any]], key: str = DEVICE) -> None:
        device = await self.device(key)
        async with self.running.database.begin() as tx:
            await verb(tx, device)

    def route(self, topic: str, payload: bytes = b"x") -> None:
        self.running.broker.route(Message(topic, payload, qos=1))

    @property
    def stored(self) -> int:
        return len(self.running.broker._sessions)

    async def ended(self) -> None:
        await until(lambda: not self.running.mqtts.connections, "the connection to end")


@pytest.fixture
async def fleet(serve: Serve, tmp_path: Path) -> AsyncIterator[Fleet]:
    running = await serve(
        block={"refusals": 0}, mqtts={"more_ports": [0]}, mqtt={"connect_timeout": 2.0}, ioto={"user_token": USER_TOKEN}
    )
    await load_rows(running, PRODUCT, OTHER_PRODUCT)
    async with running.database.read() as tx:
        anchors = pki.write_pem((await ca.default(tx)).certificate)
    async with aiohttp.ClientSession(skip_auto_headers={"Content-Type"}) as session:
        yield Fleet(running, Agent(session, running), tmp_path, anchors)
