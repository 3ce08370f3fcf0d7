"""What a gateway says about its sub-devices, and what it is answered. No I/O, no clock.

Contract: "Gateway Device: topology and proxy", section 7 of the reference; where an SDK differs from it: marked.
"""

import hashlib
import hmac
import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Final

from provisioning.core.gateway import Outcome
from provisioning.core.pki import write_pem
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.tencent.mqtt_wire import METHODS, key_of
from provisioning.protocols.tencent.wire import DEVICE_NAME, PRODUCT_ID, PROTOCOL

DIGITS: Final = re.compile(r"[0-9]{1,20}")
LARGEST: Final = 10**20 - 1
MOST_DEVICES: Final = 1_500
"""Devices that one message may name: as many as a gateway may have."""


class Verb(StrEnum):
    """The types of messages."""

    BIND = "bind"
    UNBIND = "unbind"
    DESCRIBE = "describe_sub_devices"
    ONLINE = "online"
    OFFLINE = "offline"


class Result(IntEnum):
    """The vendor's result codes."""

    OK = 0
    NOT_BOUND = -1
    SYSTEM = -2
    PARAMETER = 801
    DEVICE_NAME = 802
    SIGNATURE = 803
    METHOD = 804
    EXPIRED = 805
    BOUND = 806
    NOT_ORDINARY = 807
    NOT_ALLOWED = 808
    REPEATED = 809
    UNSUPPORTED = 810


RESULTS: Final[Mapping[Outcome, Result]] = {
    Outcome.DONE: Result.OK,
    Outcome.NOT_BOUND: Result.NOT_BOUND,
    Outcome.UNKNOWN: Result.DEVICE_NAME,
    Outcome.NOT_PROVEN: Result.SIGNATURE,
    Outcome.TAKEN: Result.BOUND,
    Outcome.REPEATED: Result.REPEATED,
    Outcome.NOT_ORDINARY: Result.NOT_ORDINARY,
    Outcome.NOT_ALLOWED: Result.NOT_ALLOWED,
    Outcome.UNSUPPORTED: Result.UNSUPPORTED,
}

AUTH_TYPES: Final[Mapping[object, bool | None]] = {"psk": False, "certificate": True, "cert": True, None: None}
"""By certificate? None: as its product has it."""


@dataclass(frozen=True, slots=True)
class BindClaim:
    """A gateway claims to speak for a device."""

    identity: Identity
    signature: str = field(repr=False)
    random: str
    timestamp: str
    method: str
    by_certificate: bool | None

    def is_fresh(self, seconds: int, now: int) -> bool:
        """Was the proof made within `seconds` of `now` (s since the epoch)? 0: at any time."""
        return not seconds or abs(int(self.timestamp) - now) <= seconds

    def proven_by(self, secret: str) -> bool:
        """The psk is Base64, and the key is what it stands for [vendor], or its text [client]."""
        return self._is_signed_by(key_of(secret), secret.encode("utf-8", "surrogatepass"))

    def proven_by_certificate(self, der: bytes) -> bool:
        """The key is a digest of the certificate in hexadecimal: SHA-1 [vendor] or MD5 [client].

        Of DER, which is what all tools call the fingerprint, or of the PEM file, as an SDK reads it.
        """
        forms = der, write_pem(der).encode()
        return self._is_signed_by(*(
            digest(form, usedforsecurity=False).hexdigest().encode()
            for digest in (hashlib.sha1, hashlib.md5) for form in forms
        ))  # fmt: skip

    def _is_signed_by(self, *keys: bytes) -> bool:
        given = self.signature.encode("utf-8", "surrogatepass")
        return any(hmac.compare_digest(self.sign(key).encode(), given) for key in keys)

    def sign(self, key: bytes) -> str:
        """Base64 of the raw HMAC over `{pid}{dn};{random};{timestamp}`."""
        text = f"{self.identity.product}{self.identity.device};{self.random};{self.timestamp}"
        return b64encode(hmac.new(key, text.encode(), METHODS[self.method]).digest()).decode()


@dataclass(frozen=True, slots=True)
class Entry:
    """One device of a request: what is asked for it, or what is wrong with it."""

    product: str
    """As it was stated; empty where it is no text."""
    device: str
    asked: BindClaim | Identity | Result


@dataclass(frozen=True, slots=True)
class Request:
    verb: Verb
    entries: tuple[Entry, ...] = ()


def read_request(payload: bytes) -> Request:
    """What a gateway asks for.

    Raises:
        Refusal: MALFORMED, with details `field` and `type`: what the message says that it is.
    """
    try:
        said = json.loads(payload)
    except (ValueError, RecursionError):
        said = None
    stated = said.get("type") if isinstance(said, dict) else None
    kind = stated if isinstance(stated, str) else ""
    try:
        verb = Verb(kind)
    except ValueError:
        raise Refusal(Reason.MALFORMED, field="type" if isinstance(said, dict) else "payload", type=kind) from None
    if verb is Verb.DESCRIBE:
        return Request(verb)
    inner = said.get("payload")
    devices = inner.get("devices") if isinstance(inner, dict) else None
    if not isinstance(devices, list) or not 0 < len(devices) <= MOST_DEVICES:
        raise Refusal(Reason.MALFORMED, field="devices", type=kind)
    return Request(verb, tuple(_read_entry(verb, each) for each in devices))


def _read_entry(verb: Verb, stated: object) -> Entry:
    if not isinstance(stated, dict):
        return Entry("", "", Result.PARAMETER)
    product, device = _text(stated, "product_id"), _text(stated, "device_name")
    asked: BindClaim | Identity | Result
    if not PRODUCT_ID.fullmatch(product):
        asked = Result.PARAMETER
    elif not DEVICE_NAME.fullmatch(device):
        asked = Result.DEVICE_NAME
    else:
        identity = Identity(PROTOCOL, product, device)
        asked = _read_claim(identity, stated) if verb is Verb.BIND else identity
    return Entry(product, device, asked)


def _read_claim(identity: Identity, stated: Mapping[str, Any]) -> BindClaim | Result:
    signature, method = _text(stated, "signature"), _text(stated, "signmethod").lower()
    random, timestamp = _number(stated.get("random")), _number(stated.get("timestamp"))
    auth_type = stated.get("authtype")
    if not (signature and random and timestamp and method) or isinstance(auth_type, list | dict):
        return Result.PARAMETER
    if auth_type not in AUTH_TYPES:
        return Result.PARAMETER
    if method not in METHODS:
        return Result.METHOD
    return BindClaim(identity, signature, random, timestamp, method, AUTH_TYPES[auth_type])


def _text(stated: Mapping[str, Any], name: str) -> str:
    value = stated.get(name)
    return value if isinstance(value, str) else ""


def _number(value: object) -> str:
    """An unsigned integer as it was signed, as a number or as text; empty: it is none."""
    if isinstance(value, str):
        return value if DIGITS.fullmatch(value) else ""
    return str(value) if type(value) is int and 0 <= value <= LARGEST else ""


def write_results(kind: str, results: Sequence[tuple[Entry, Result]]) -> bytes:
    """The answer to all types but one: a code for each device."""
    return _write(kind, [
        {"product_id": entry.product, "device_name": entry.device, "result": int(result)} for entry, result in results
    ])  # fmt: skip


def write_sub_devices(devices: Sequence[Identity]) -> bytes:
    """The answer to `describe_sub_devices`."""
    return _write(str(Verb.DESCRIBE), [{"product_id": each.product, "device_name": each.device} for each in devices])


NOBODY: Final = Entry("", "", Result.PARAMETER)
"""Stands for the devices of a message that names none."""


def _write(kind: str, devices: list[dict[str, object]]) -> bytes:
    return json.dumps({"type": kind, "payload": {"devices": devices}}, separators=(",", ":")).encode()
