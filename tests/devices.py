"""Devices as the tests play them: requests, logins, and MQTT clients over a real connection."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiomqtt

from broker import packets
from provisioning.model.mqtt import Connect, Message
from provisioning.protocols.enos import mqtt_wire, wire

PRODUCT: dict[str, object] = {
    "type": "product", "protocol": "enos", "productKey": "pk1", "productSecret": "ps1", "dynamicActivation": True,
}  # fmt: skip
GROUP: dict[str, object] = {
    "type": "group", "protocol": "enos", "groupId": "g1", "password": "gp1", "productKey": "pk1",
    "autoRegister": True, "autoActivation": True,
}  # fmt: skip
DEVICE: dict[str, object] = {
    "type": "device", "protocol": "enos", "productKey": "pk1", "deviceKey": "dk1", "deviceSecret": "ds1",
}  # fmt: skip


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def bootstrap_body(
    serial: str = "SN1", *, group: str = "g1", password: str = "gp1", at: int | None = None, **more: Any
) -> dict[str, Any]:
    """A signed request; `more` replaces fields, None removes one."""
    at = now_ms() if at is None else at
    body: dict[str, Any] = {
        "deviceSn": serial, "groupId": group, "dpsSignMethod": "sha256", "dpsSignTimestamp": at,
        "dpsSign": wire.sign("sha256", password, sn=serial, timestamp=str(at)),
        "deviceName": {"defaultValue": "abc"}, "timezone": "+08:00",
    } | more  # fmt: skip
    return {name: value for name, value in body.items() if value is not None}


def get_conn_proof(serial: str, password: str = "gp1", at: int | None = None) -> dict[str, Any]:
    at = now_ms() if at is None else at
    return {"sn": serial, "timestamp": at, "sign": wire.sign("sha256", password, sn=serial, timestamp=str(at))}


def login(
    device: str = "dk1", secret: str = "ds1", *, mode: str = "2", product: str = "pk1", method: str = "sha256",
    client: str | None = None, at: str | None = None,
) -> dict[str, str]:  # fmt: skip
    """Client id, user name and password, named as aiomqtt's client has them."""
    client_id = mqtt_wire.ClientId(client or device, mode, method, at or str(now_ms()))
    return {
        "identifier": mqtt_wire.write_client_id(client_id),
        "username": f"{device}&{product}",
        "password": mqtt_wire.mqtt_password(client_id, device, product, secret),
    }


def connect(
    credentials: dict[str, str], *, level: int = 4, clean: bool = True, keepalive: int = 60, **more: Any
) -> Connect:
    return Connect(
        level=level, client_id=credentials["identifier"], username=credentials["username"],
        password=credentials["password"].encode(), clean=clean, keepalive=keepalive, **more,
    )  # fmt: skip


@asynccontextmanager
async def device(port: int, credentials: dict[str, str], **more: Any) -> AsyncIterator[aiomqtt.Client]:
    """A device on an ordinary MQTT library."""
    async with aiomqtt.Client("127.0.0.1", port, **{**credentials, **more}) as client:
        yield client


class Raw:
    """A client that sends what it likes, packet by packet, and reads what comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._buffer = b""
        self.level = 4

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def login(self, wanted: Connect) -> packets.Connack:
        self.level = wanted.level
        self.send(packets.write_connect(wanted))
        answer = await self.read()
        assert isinstance(answer, packets.Connack), f"expected CONNACK, got {answer}"
        return answer

    async def read(self, seconds: float = 5.0) -> packets.ServerPacket | None:
        """The next packet; None: the connection was closed. Raises TimeoutError when nothing comes."""
        async with asyncio.timeout(seconds):
            while True:
                bounds = packets.frame(self._buffer, 0, 2**28) if self._buffer else None
                if bounds and bounds[1] <= len(self._buffer):
                    first, body = self._buffer[0], self._buffer[bounds[0] : bounds[1]]
                    self._buffer = self._buffer[bounds[1] :]
                    return packets.read_server(first, body, self.level)
                try:
                    data = await self._reader.read(65_536)
                except ConnectionError:
                    return None
                if not data:
                    return None
                self._buffer += data

    async def read_publish(self, seconds: float = 5.0) -> packets.Publish:
        packet = await self.read(seconds)
        assert isinstance(packet, packets.Publish), f"expected PUBLISH, got {packet}"
        return packet

    async def ping(self) -> list[packets.ServerPacket]:
        """Everything that comes before the answer to a PINGREQ: when it is here, nothing else was under way."""
        self.send(packets.PINGREQ)
        before: list[packets.ServerPacket] = []
        while not isinstance(packet := await self.read(), packets.Pingresp):
            assert packet is not None, f"the connection was closed; before that came {before}"
            before.append(packet)
        return before

    async def subscribe(self, *filters: tuple[str, int], packet_id: int = 1) -> tuple[int, ...]:
        self.send(packets.write_subscribe(packet_id, filters, self.level))
        packet = await self.read()
        assert isinstance(packet, packets.Suback), f"expected SUBACK, got {packet}"
        return packet.codes

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, packet_id: int = 7, retain: bool = False) -> None:
        message = Message(topic, payload, qos=qos, retain=retain)
        self.send(packets.write_publish(message, level=self.level, packet_id=packet_id if qos else None))

    async def is_closed(self, seconds: float = 5.0) -> bool:
        """Does the server close the connection, whatever else it sends before?"""
        try:
            while await self.read(seconds) is not None:
                pass
        except TimeoutError:
            return False
        return True

    def abort(self) -> None:
        """Go without a word."""
        self._writer.transport.abort()

    async def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def raw(port: int) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = Raw(reader, writer)
    try:
        yield client
    finally:
        writer.transport.abort()
