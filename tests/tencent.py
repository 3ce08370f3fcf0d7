"""Tencent devices as the tests play them over MQTT."""

import hashlib
import hmac
import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from broker.packets import Puback, Publish, write_puback
from provisioning.app import Running
from provisioning.model.mqtt import Connect
from provisioning.protocols.tencent.mqtt_wire import mqtt_password
from tests.devices import Raw, raw

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors.json").read_text("utf-8"))["tencent"]
KEYS, LEAVES = "KEYPRODUCT", "CERTPRODUC"
"""A product whose devices have keys, and one whose devices have certificates."""
FUTURE = 4_102_444_800


def psk(device: str) -> str:
    return b64encode(device.encode().ljust(16, b"k")[:16]).decode()


def product_row(key: str = KEYS, **more: object) -> dict[str, object]:
    return {"type": "product", "protocol": "tencent", "productId": key, "productSecret": "x" * 24, **more}


def device_row(device: str = "d1", key: str = KEYS, **more: object) -> dict[str, object]:
    return {
        "type": "device", "protocol": "tencent", "productId": key, "deviceName": device, "psk": psk(device), **more,
    }  # fmt: skip


ROWS = (product_row(), product_row(LEAVES, encryptionType=1), device_row(), device_row("d2"), device_row("c1", LEAVES))


def connect(
    device: str = "d1", *, product: str = KEYS, secret: str | None = None, method: str = "hmacsha256",
    expiry: object = FUTURE, level: int = 4, clean: bool = True, keepalive: int = 60, client_id: str | None = None,
    connid: str = "A1b2C", **more: Any,
) -> Connect:  # fmt: skip
    """A CONNECT as an SDK makes it."""
    name = f"{product}{device}"
    user = f"{name};12010126;{connid};{expiry}"
    return Connect(
        level=level, client_id=client_id or name, username=user,
        password=mqtt_password(user, secret or psk(device), method).encode(), clean=clean, keepalive=keepalive, **more,
    )  # fmt: skip


@asynccontextmanager
async def device(running: Running, name: str = "d1", *, port: int = 0, **more: Any) -> AsyncIterator[Raw]:
    """A device that is logged in."""
    async with raw(port or running.mqtt.port) as client:
        answer = await client.login(connect(name, **more))
        assert answer.code == 0, f"CONNACK {answer.code}"
        yield client


async def code(running: Running, wanted: Connect) -> int:
    """The CONNACK code."""
    async with raw(running.mqtt.port) as client:
        return (await client.login(wanted)).code


class Gateway:
    """A device that speaks for others; it has subscribed to its answers."""

    def __init__(self, client: Raw, name: str, product: str = KEYS) -> None:
        self.client = client
        self.name = f"{product}/{name}"

    @property
    def topic(self) -> str:
        return f"$gateway/operation/{self.name}"

    async def subscribe(self) -> "Gateway":
        assert await self.client.subscribe((f"$gateway/operation/result/{self.name}", 1)) == (1,)
        return self

    async def say(self, payload: bytes) -> dict[str, Any]:
        """The answer to a message."""
        self.client.publish(self.topic, payload, qos=1, packet_id=77)
        assert await self.client.read() == Puback(77)
        packet = await self.client.read(15)
        assert isinstance(packet, Publish), f"expected PUBLISH, got {packet}"
        if packet.packet_id is not None:
            self.client.send(write_puback(packet.packet_id))
        assert packet.message.topic == f"$gateway/operation/result/{self.name}"
        answer: dict[str, Any] = json.loads(packet.message.payload)
        return answer

    async def ask(self, verb: str, *devices: Mapping[str, Any]) -> list[int]:
        """The result codes, in the order of the devices."""
        answer = await self.say(json.dumps({"type": verb, "payload": {"devices": devices}}).encode())
        assert answer["type"] == verb
        stated = [(each.get("product_id", ""), each.get("device_name", "")) for each in devices]
        answered = answer["payload"]["devices"]
        assert [(each["product_id"], each["device_name"]) for each in answered] == stated
        return [each["result"] for each in answered]


@asynccontextmanager
async def gateway(running: Running, name: str = "d1", **more: Any) -> AsyncIterator[Gateway]:
    async with device(running, name, **more) as client:
        yield await Gateway(client, name).subscribe()


def named(name: str, product: str = KEYS) -> dict[str, Any]:
    return {"product_id": product, "device_name": name}


def signed(name: str, product: str = KEYS, *, key: bytes | None = None, **more: Any) -> dict[str, Any]:
    """A device's proof; `key`: as its psk is decoded. `more` replaces fields, None removes one."""
    stated: dict[str, Any] = named(name, product) | {
        "random": 121213, "timestamp": int(time.time()), "signmethod": "hmacsha256", "authtype": "psk",
    } | more  # fmt: skip
    text = f"{product}{name};{stated['random']};{stated['timestamp']}"
    method = hashlib.sha1 if stated["signmethod"] == "hmacsha1" else hashlib.sha256
    own = name.encode().ljust(16, b"k")[:16] if key is None else key
    stated.setdefault("signature", b64encode(hmac.new(own, text.encode(), method).digest()).decode())
    return {field: value for field, value in stated.items() if value is not None}


async def quiet(client: Raw) -> None:
    """Nothing comes, and the connection stands."""
    assert await client.ping() == []
