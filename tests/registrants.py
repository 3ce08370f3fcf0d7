"""Devices that register as Tencent's do: signed here by the words of the vendor's pages, not by our own code."""

import base64
import hashlib
import hmac
import io
import json
import time
from dataclasses import dataclass
from itertools import count
from typing import Any

import aiohttp
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from provisioning.app import Running

PRODUCT_ID, PRODUCT_SECRET = "ASJ2KF9GX1", "hzvf5LF9S0isvBhDSauWMaIk"
PRODUCT: dict[str, object] = {
    "type": "product", "protocol": "tencent", "productId": PRODUCT_ID, "productSecret": PRODUCT_SECRET,
    "registerType": 2, "encryptionType": 2,
}  # fmt: skip
NO_LIMITS = {"rate_per_address": 0, "rate_per_product": 0}
NONCES = count(1)


def now() -> int:
    return int(time.time())


def signed(
    body: bytes,
    *,
    secret: str = PRODUCT_SECRET,
    host: str = "ap-guangzhou.gateway.tencentdevices.com",
    path: str = "/device/register",
    algorithm: str = "hmacsha256",
    body_hash: str = "",
    timestamp: int | None = None,
    nonce: int | None = None,
) -> dict[str, str]:
    """The headers of a registration."""
    digest = algorithm.lower().removeprefix("hmac")
    at = str(now() if timestamp is None else timestamp)
    once = str(next(NONCES) if nonce is None else nonce)
    hashed = hashlib.new(body_hash or digest, body).hexdigest()
    text = "\n".join(["POST", host, path, "", algorithm, at, once, hashed])  # noqa: FLY002 - as the page lists them
    return {
        "Content-Type": "application/json; charset=utf-8", "X-TC-Algorithm": algorithm, "X-TC-Timestamp": at,
        "X-TC-Nonce": once,
        "X-TC-Signature": base64.b64encode(hmac.new(secret.encode(), text.encode(), digest).digest()).decode(),
    }  # fmt: skip


def body_of(device: str = "dev1", product: str = PRODUCT_ID, **more: object) -> bytes:
    return json.dumps({"ProductId": product, "DeviceName": device, **more}).encode()


def legacy_body(device: str = "dev1", product: str = PRODUCT_ID, secret: str = PRODUCT_SECRET, **more: Any) -> bytes:
    fields: dict[str, Any] = {"deviceName": device, "nonce": next(NONCES), "productId": product, "timestamp": now()}
    fields |= more
    text = "deviceName={deviceName}&nonce={nonce}&productId={productId}&timestamp={timestamp}".format(**fields)
    proof = hmac.new(secret.encode(), text.encode(), "sha1").hexdigest()
    return json.dumps({"signature": base64.b64encode(proof.encode()).decode()} | fields).encode()


def decrypted(payload: str, length: int, secret: str = PRODUCT_SECRET) -> Any:
    """As the vendor's Java SDK does: decrypt, cut at Len, read."""
    decryptor = Cipher(algorithms.AES(secret[:16].encode()), modes.CBC(b"0" * 16)).decryptor()
    text = decryptor.update(base64.b64decode(payload, validate=True)) + decryptor.finalize()
    assert len(text) % 16 == 0
    assert text[length:] == bytes(len(text) - length)
    return json.loads(text[:length])


@dataclass(frozen=True)
class Reply:
    status: int
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> int:
        """0: it is a success."""
        if "Payload" in self.body.get("Response", {}):
            return 0
        assert "payload" in self.text or self.body["code"] > 0
        return int(self.body["code"])

    def given(self, secret: str = PRODUCT_SECRET) -> Any:
        """What the device was given."""
        assert (self.status, self.code) == (200, 0), self.text
        if "Response" not in self.body:
            assert len(self.text) < 256
            return decrypted(self.body["payload"], self.body["len"], secret)
        response = self.body["Response"]
        assert list(response) == ["Len", "Payload", "RequestId"]
        assert len(self.text) < 5 * 1024
        return decrypted(response["Payload"], response["Len"], secret)

    def psk(self, secret: str = PRODUCT_SECRET) -> str:
        given = self.given(secret)
        assert list(given) == ["encryptionType", "psk"]
        assert given["encryptionType"] == 2
        assert len(base64.b64decode(given["psk"], validate=True)) == 16
        return str(given["psk"])

    def without_id(self) -> Any:
        """An error, but for what is its own."""
        body = self.body
        assert body["Response"].pop("RequestId")
        return self.status, body


class Registrant:
    """A device with an HTTP library."""

    def __init__(self, session: aiohttp.ClientSession, running: Running) -> None:
        self._session = session
        self._running = running

    async def post(self, path: str, body: bytes, headers: Any) -> Reply:
        url = f"http://127.0.0.1:{self._running.http.port}{path}"
        async with self._session.post(url, data=io.BytesIO(body), headers=headers) as response:
            assert response.content_type == "application/json"
            return Reply(response.status, await response.text())

    async def register(
        self, device: str = "dev1", product: str = PRODUCT_ID, *, more: dict[str, object] | None = None, **how: Any
    ) -> Reply:
        body = body_of(device, product, **(more or {}))
        return await self.post("/device/register", body, signed(body, **how))

    async def register_legacy(self, *args: str, **more: Any) -> Reply:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return await self.post("/register/dev", legacy_body(*args, **more), headers)
