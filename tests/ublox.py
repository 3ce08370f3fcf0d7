"""Accounts and devices of u-blox for tests, and a client of the API."""

import hashlib
import hmac
import io
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from provisioning.app import Running
from provisioning.core import accounts
from provisioning.model.account import Account
from provisioning.model.lifecycle import State
from provisioning.model.registry import Device, Group
from provisioning.protocols.ublox.wire import PROTOCOL
from provisioning.store import devices, groups, modules
from provisioning.store.database import Database

ROOT_SECRET = bytes(range(32))
"""Of the worked example and the vectors."""
SECRET = "nqnazbOMuKAalu9KZwHKyN7tnJua96ki"
KEY = "0d636af8-d001-49ba-86d3-80f21272c14a"
OTHER_KEY = "7a3e5b1c-0000-4000-8000-000000000001"
PROFILE = "mbYbAX-CoEqE97TMFBsUKQ"


async def make_account(
    database: Database, key: str = KEY, secret: str = SECRET, *, certificates: bool = True, strict_e2e: bool = False
) -> Account:
    async with database.begin() as tx:
        return await accounts.create(
            tx, PROTOCOL, key, accounts.hash_secret(secret), certificates=certificates, strict_e2e=strict_e2e
        )


async def make_devices(
    database: Database,
    account: Account,
    uids: Sequence[str],
    *,
    secret: bytes = ROOT_SECRET,
    serial: str | None = None,
    imei: str | None = None,
) -> list[int]:
    """Devices as an import brings them about: none has bootstrapped. Returns their ids."""
    async with database.begin() as tx:
        rows = [
            Device(protocol=PROTOCOL, state=State.ALLOCATED, product=account.key, key=uid, secret=secret.hex())
            for uid in uids
        ]
        added = await devices.add_many(tx, [(row, account.id, None) for row in rows])
        await modules.add(tx, [(each.id, account.id, each.key, serial, imei) for each in added])
        return [each.id for each in added]


async def make_profile(
    database: Database, account: Account, uid: str = PROFILE, *, name: str = "meters-eu", whitelist_check: bool = True
) -> int:
    """A device profile. Returns its id."""
    async with database.begin() as tx:
        group = await groups.add(
            tx,
            Group(protocol=PROTOCOL, key=uid, password="unused-" + uid, product=account.key, product_id=account.id,
                  name=name),
        )  # fmt: skip
        await tx.db.execute(
            "INSERT INTO device_profile (group_id, account_id, whitelist_check) VALUES ($1, $2, $3)",
            group.id, account.id, whitelist_check,
        )  # fmt: skip
        return group.id


@dataclass
class Clock:
    """A clock that tests move. `set_on` makes a running service go by it."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def __call__(self) -> datetime:
        return self.now

    def move(self, **delta: float) -> None:
        self.now += timedelta(**delta)

    def set_on(self, running: Running) -> None:
        running.world.clock = self


@dataclass
class Answer:
    status: int
    body: Any
    headers: Any = field(repr=False, default=None)


@dataclass
class Client:
    """An application of an account. `token` None: it has not authenticated."""

    http: aiohttp.ClientSession
    url: str
    token: str | None = None
    refresh_token: str | None = None

    async def send(
        self, path: str, data: bytes, *, headers: dict[str, str] | None = None, method: str = "POST"
    ) -> Answer:
        body = io.BytesIO(data) if len(data) > 2**20 else data  # aiohttp wants it
        async with self.http.request(method, f"{self.url}{path}", data=body, headers=headers or {}) as response:
            text = await response.text()
            return Answer(response.status, json.loads(text), response.headers)

    async def post(self, path: str, body: object = None, *, version: str = "/v1") -> Answer:
        headers = {"Content-Type": "application/json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        return await self.send(version + path, json.dumps({} if body is None else body).encode(), headers=headers)

    async def ok(self, path: str, body: object = None) -> Any:
        """The body of an answer that must be 200."""
        answer = await self.post(path, body)
        assert answer.status == 200, f"{path}: {answer}"
        return answer.body

    async def refused(self, path: str, body: object, status: int, message: str) -> None:
        """The answer must be this refusal, under `message` or, where the contract says so, `Message`."""
        answer = await self.post(path, body)
        assert answer.status == status, f"{path}: {answer}"
        assert list(answer.body.values()) == [message], f"{path}: {answer}"

    async def authenticate(self, key: str = KEY, secret: str = SECRET) -> "Client":
        found = await self.ok("/authenticate", {"APIKey": key, "APISecret": secret})
        self.token, self.refresh_token = found["AuthToken"], found["RefreshToken"]
        return self


@asynccontextmanager
async def client(running: Running) -> AsyncIterator[Client]:
    """Nobody's client yet: see `authenticate`."""
    async with aiohttp.ClientSession() as http:
        yield Client(http, f"http://127.0.0.1:{running.http.port}")


def sign(body: dict[str, Any], uid: str, secret: bytes = ROOT_SECRET) -> dict[str, Any]:
    """The body of a device's call with its Mac (contract, section 3), by no code of the product."""
    key = HKDF(SHA256(), 32, salt=bytes.fromhex(uid), info=b"uss/hb").derive(secret)
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return body | {"Mac": hmac.new(key, text.encode(), hashlib.sha256).hexdigest()}
