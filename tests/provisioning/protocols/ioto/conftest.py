"""A service with a product, and an agent that speaks to it."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import structlog

from provisioning.app import Running
from tests.conftest import Serve, load_rows

TOKEN = "01HQ5T0KENF0RPR0DUCT0000AB"
OTHER_TOKEN = "another"
USER_TOKEN = "user-0123456789abcdef"
DEVICE = "CLAIM00001"
PRODUCT: dict[str, object] = {"type": "product", "protocol": "ioto", "productToken": TOKEN, "name": "Sensor"}
OTHER_PRODUCT: dict[str, object] = {"type": "product", "protocol": "ioto", "productToken": OTHER_TOKEN}
API = "https://iot.example.org"

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
