"""Tencent's registration on the wire: what devices ask, and their signatures. No I/O, no clock, no storage.

Contract: "Dynamic Registration API Description", "Signature Algorithm"; and what the vendor's own SDKs send, where they
differ from these pages: each time marked.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Any, Final

from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.tencent.payload import CERTIFICATE_ENCRYPTION, KEY_ENCRYPTION
from provisioning.web.parsing import parse_json

PROTOCOL: Final = "tencent"
REGISTER_PATH: Final = "/device/register"
LEGACY_PATH: Final = "/register/dev"

PRODUCT_ID: Final = re.compile(r"[A-Za-z0-9_]{1,32}")
"""Real ids have exactly 10 upper-case letters and digits: MQTT splits there. Here any is looked up."""
DEVICE_NAME: Final = re.compile(r"[A-Za-z0-9:_-]{1,48}")
SECONDS: Final = re.compile(r"[0-9]{1,12}")
NONCE: Final = re.compile(r"[0-9]{1,10}")
LARGEST_TIMESTAMP, LARGEST_NONCE = 10**12 - 1, 2**31 - 1
LARGEST_CERTIFICATE: Final = 8_192
PORT: Final = re.compile(r":[0-9]*\Z")

VENDOR_HOSTS: Final = (
    "ap-guangzhou.gateway.tencentdevices.com",
    "us-east.gateway.tencentdevices.com",
    "europe.gateway.tencentdevices.com",
    "ap-bangkok.gateway.tencentdevices.com",
    "gateway.tencentdevices.com",
)
"""Some SDKs sign the literal Guangzhou name, whatever the address is that they were given."""

Headers = Callable[[str], Sequence[str]]
"""The values of a header, by its name in any case."""


def missing(name: str) -> Refusal:
    return Refusal(Reason.MISSING, field=name)


def malformed(name: str) -> Refusal:
    return Refusal(Reason.MALFORMED, field=name)


# --- fields ----------------------------------------------------------------------------------------------------------


def is_mine(header_names: Iterable[str], body: object) -> bool:
    """Is a request at /device/register Tencent's? Another vendor's devices use the same path."""
    return any(name.lower().startswith("x-tc-") for name in header_names) or (
        isinstance(body, dict) and "ProductId" in body
    )


def read_body(body: bytes) -> dict[str, Any]:
    """Raises: Refusal MISSING, field `body`, for what is no JSON object: its fields are absent."""
    try:
        fields = parse_json(body)
    except Refusal:
        raise missing("body") from None
    if not isinstance(fields, dict):
        raise missing("body")
    return fields


def _text(fields: Mapping[str, Any], name: str, form: re.Pattern[str]) -> str:
    value = fields.get(name)
    if value is None:
        raise missing(name)
    if not isinstance(value, str) or not form.fullmatch(value):
        raise malformed(name)
    return value


def _number(fields: Mapping[str, Any], name: str, largest: int) -> int:
    value = fields.get(name)
    if value is None:
        raise missing(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
        raise malformed(name)
    return value


def _header(headers: Headers, name: str) -> str:
    values = headers(name)
    if not values or not values[0].strip():
        raise missing(name)
    if len(values) > 1:
        raise malformed(name)
    return values[0].strip()


# --- claims ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Somebody claims to be a device of a product, and that it knows the product's secret."""

    product: str
    device: str
    timestamp: int
    """Seconds since the epoch, as the device has it."""
    nonce: int
    now: int
    """Seconds since the epoch when the request came."""

    @property
    def identity(self) -> Identity:
        return Identity(PROTOCOL, self.product, self.device)

    @property
    def proof(self) -> tuple[str, str, int, int]:
        """What no second claim has, unless it is a repetition."""
        return self.product, self.device, self.timestamp, self.nonce

    def is_fresh(self, seconds: int) -> bool:
        """Was it signed within so many seconds of now? 0: any time."""
        return seconds == 0 or abs(self.now - self.timestamp) <= seconds


def decode_signature(text: str) -> tuple[bytes, ...]:
    """The raw digests that it may stand for: Base64, as every SDK sends it, or hex, as on the vendor's page."""
    found = []
    if len(text) in {40, 64}:
        with suppress(ValueError):
            found.append(bytes.fromhex(text))
    with suppress(ValueError):
        found.append(base64.b64decode(text, validate=True))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Register(Claim):
    """A registration whose headers are signed."""

    algorithm: str
    """As it was sent."""
    hosts: tuple[str, ...]
    paths: tuple[str, ...]
    timestamp_text: str
    nonce_text: str
    body: bytes = field(repr=False)
    signature: str = field(repr=False)
    encryption: int | None = None
    certificate: str | None = None
    """PEM."""

    @property
    def digest(self) -> str:
        return "sha1" if self.algorithm.lower() == "hmacsha1" else "sha256"

    def strings(self) -> Iterator[str]:
        """Everything that a client may have signed; the usual first. The body counts as it was received.

        The page has SHA-256 of the body for both algorithms; with hmacsha1 the C SDK and the vendor's own published
        vector have SHA-1.
        """
        hashes = [hashlib.sha256(self.body).hexdigest()]
        if self.digest == "sha1":
            hashes.insert(0, hashlib.sha1(self.body, usedforsecurity=False).hexdigest())
        for algorithm in dict.fromkeys((self.algorithm.lower(), self.algorithm)):  # SDKs sign it in lower case
            for host in self.hosts:
                for path in self.paths:
                    for hashed in hashes:
                        yield string_to_sign(
                            host, path, algorithm=algorithm, timestamp=self.timestamp_text, nonce=self.nonce_text,
                            hashed_body=hashed,
                        )  # fmt: skip

    def proven_by(self, secret: str) -> bool:
        """In constant time for each string that may have been signed."""
        given, key = decode_signature(self.signature), secret.encode()
        for text in self.strings():
            expected = hmac.digest(key, text.encode("utf-8", "surrogateescape"), self.digest)
            if any(compare_digest(expected, each) for each in given):
                return True
        return False


def string_to_sign(host: str, path: str, *, algorithm: str, timestamp: str, nonce: str, hashed_body: str) -> str:
    """The empty line is the query."""
    return f"POST\n{host}\n{path}\n\n{algorithm}\n{timestamp}\n{nonce}\n{hashed_body}"


def sign(secret: str, text: str, digest: str = "sha256") -> str:
    return base64.b64encode(hmac.digest(secret.encode(), text.encode(), digest)).decode()


def hosts(asked: str, aliases: Sequence[str] = ()) -> tuple[str, ...]:
    """The names that a client may have signed when its Host header is `asked`: some leave the port out."""
    return tuple(dict.fromkeys((PORT.sub("", asked), asked, *aliases, *VENDOR_HOSTS)))


def read_register(headers: Headers, path: str, body: bytes, *, aliases: Sequence[str] = (), now: int) -> Register:
    """`path`: as it was received, without the query.

    Raises:
        Refusal: MISSING, MALFORMED or UNSUPPORTED_MEDIA_TYPE, with the field.
    """
    content_type = _header(headers, "Content-Type")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise Refusal(Reason.UNSUPPORTED_MEDIA_TYPE, field="Content-Type")
    fields = read_body(body)
    product = _text(fields, "ProductId", PRODUCT_ID)
    device = _text(fields, "DeviceName", DEVICE_NAME)
    encryption, certificate = _encryption(fields)
    algorithm = _header(headers, "X-TC-Algorithm")
    if algorithm.lower() not in {"hmacsha256", "hmacsha1"}:
        raise malformed("X-TC-Algorithm")
    timestamp = _header(headers, "X-TC-Timestamp")
    if not SECONDS.fullmatch(timestamp):
        raise malformed("X-TC-Timestamp")
    nonce = _header(headers, "X-TC-Nonce")
    if not NONCE.fullmatch(nonce) or int(nonce) > LARGEST_NONCE:
        raise malformed("X-TC-Nonce")
    signature = _header(headers, "X-TC-Signature")
    asked = headers("Host")
    return Register(
        product=product, device=device, timestamp=int(timestamp), nonce=int(nonce), now=now, algorithm=algorithm,
        hosts=hosts(asked[0] if asked else "", aliases), paths=tuple(dict.fromkeys((REGISTER_PATH, path))),
        timestamp_text=timestamp, nonce_text=nonce, body=body, signature=signature, encryption=encryption,
        certificate=certificate,
    )  # fmt: skip


def _encryption(fields: Mapping[str, Any]) -> tuple[int | None, str | None]:
    encryption, certificate = fields.get("EncryptionType"), fields.get("ClientCert")
    if encryption is not None and (
        not isinstance(encryption, int)
        or isinstance(encryption, bool)
        or encryption not in {CERTIFICATE_ENCRYPTION, KEY_ENCRYPTION}
    ):
        raise malformed("EncryptionType")
    if certificate is not None and not (
        isinstance(certificate, str) and certificate.isascii() and 0 < len(certificate) <= LARGEST_CERTIFICATE
    ):
        raise malformed("ClientCert")
    if certificate is not None and encryption == KEY_ENCRYPTION:
        raise malformed("EncryptionType")
    return encryption, certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyRegister(Claim):
    """A registration of older C firmware: the signature is in the body."""

    signature: str = field(repr=False)

    def proven_by(self, secret: str) -> bool:
        """Base64 of the digest's hex text, as that firmware has it; of the digest itself is a wrong client."""
        expected = legacy_signature(self.product, self.device, self.timestamp, self.nonce, secret)
        return compare_digest(expected.encode(), self.signature.encode("utf-8", "surrogatepass"))


def legacy_signature(product: str, device: str, timestamp: int, nonce: int, secret: str) -> str:
    text = f"deviceName={device}&nonce={nonce}&productId={product}&timestamp={timestamp}"
    return base64.b64encode(hmac.new(secret.encode(), text.encode(), "sha1").hexdigest().encode()).decode()


def read_legacy(body: bytes, *, now: int) -> LegacyRegister:
    """The Content-Type says form data, and the body is JSON: only the latter counts.

    Raises:
        Refusal: MISSING or MALFORMED, with the field.
    """
    fields = read_body(body)
    product = _text(fields, "productId", PRODUCT_ID)
    device = _text(fields, "deviceName", DEVICE_NAME)
    nonce = _number(fields, "nonce", LARGEST_NONCE)
    timestamp = _number(fields, "timestamp", LARGEST_TIMESTAMP)
    signature = fields.get("signature")
    if signature is None or signature == "":
        raise missing("signature")
    if not isinstance(signature, str):
        raise malformed("signature")
    return LegacyRegister(
        product=product, device=device, nonce=nonce, timestamp=timestamp, now=now, signature=signature
    )  # fmt: skip
