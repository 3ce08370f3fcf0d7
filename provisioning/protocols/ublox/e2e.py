"""End-to-end services: what protects data between applications and devices, and how keys rotate.

Contract: sections 4.4 and 8. Keys are derived when they are asked for (`derivation`); none is stored. Every device of
the account may be asked about, before its bootstrap too; a disabled one is as one that there is not.
"""

import secrets
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, NotRequired, TypedDict

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from provisioning.protocols.ublox import derivation, refusals, selection, wire
from provisioning.protocols.ublox.call import Call
from provisioning.protocols.ublox.derivation import (
    DOWNLINK_SUITE,
    KEY_BITS,
    KEY_ID_BYTES,
    MAC_BITS,
    UPLINK_SUITE,
    V1_HEADER_BYTES,
    V2_HEADER_BYTES,
    DownlinkKeys,
)
from provisioning.protocols.ublox.reading import Form, Integer, Selection, Uid
from provisioning.store import keysets, usage
from provisioning.store.keysets import Mode, Owner, Rotation

DEFAULT_DAYS: Final = 7
MOST_DAYS: Final = 30
DAY: Final = 86_400
"""Seconds."""
LONGEST_KEY: Final = 256
KEY_LENGTHS: Final = (128, LONGEST_KEY)
USED_SYMMETRIC_KEY: Final = "SymmetricKey"
USED_PROTECTION: Final = "ProtectionParameters"


def _hex(*forms: tuple[str, int]) -> tuple[Callable[[object], bytes], WithJsonSchema]:
    """Reads hex digits: each form is the first digit, or those that may be, and the number of bytes."""

    def read(value: object) -> bytes:
        if isinstance(value, str) and value.isascii() and value.isalnum():
            for first, size in forms:
                if len(value) == 2 * size and value[0] in first:
                    return bytes.fromhex(value)
        raise ValueError("must be hexadecimal digits, as many as there are in its version")

    pattern = "|".join(f"[{first}][0-9A-Fa-f]{{{2 * size - 1}}}" for first, size in forms)
    return read, WithJsonSchema({"type": "string", "pattern": f"^({pattern})$"})


def _key_length(value: int) -> int:
    if value not in KEY_LENGTHS:
        raise ValueError("must be 128 or 256")
    return value


_read_key_id, _key_id_schema = _hex(("12", KEY_ID_BYTES))
_read_header, _header_schema = _hex(("1", V1_HEADER_BYTES), *(("2", size) for size in V2_HEADER_BYTES))
_read_any_header, _any_header_schema = _hex(*(("12", size) for size in (V1_HEADER_BYTES, *V2_HEADER_BYTES)))
KeyId = Annotated[bytes, BeforeValidator(_read_key_id), _key_id_schema]
Header = Annotated[bytes, BeforeValidator(_read_header), _header_schema]
AnyHeader = Annotated[bytes, BeforeValidator(_read_any_header), _any_header_schema]
KeyLength = Annotated[
    Integer, AfterValidator(_key_length), WithJsonSchema({"type": "integer", "enum": list(KEY_LENGTHS)})
]


class Rotate(Selection):
    type: Literal["CONTINUOUS", "AUTOMATIC"] = Field(alias="Type")
    days: Annotated[Integer, Field(ge=1, le=MOST_DAYS)] | None = Field(None, alias="Days")


class GetSymmetricKey(Form):
    key_id: KeyId = Field(alias="KeyID")
    length: KeyLength | None = Field(None, alias="KeyLength")


class GetUplinkProtection(Form):
    header: Header = Field(alias="EncryptedHeader")


class GetUplinkIntegrity(Form):
    header: AnyHeader = Field(alias="EncryptedHeader")


class GetDownlink(Form):
    uid: Uid = Field(alias="ROTPublicUID")


@dataclass(frozen=True, slots=True)
class Rotated:
    days: int | None
    """None: with each call."""
    adjusted: bool
    """Heartbeats come more often now."""


@dataclass(frozen=True, slots=True)
class Keyed:
    """A key of a device's."""

    uid: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Uplink:
    uid: str
    key: bytes = field(repr=False)
    nonce: bytes
    kiv: bytes | None
    """None: not to be told."""


@dataclass(frozen=True, slots=True)
class Integrity:
    uid: str
    key: bytes = field(repr=False)
    kiv: bytes


@dataclass(frozen=True, slots=True)
class Downlink:
    uid: str
    keys: DownlinkKeys
    kiv: bytes


class SymmetricKey(TypedDict):
    Key: str
    ROTPublicUID: str | int


class _Kiv(TypedDict):
    KIV: NotRequired[str]


class UplinkProtection(_Kiv):
    Nonce: str
    MACLength: int
    CipherSuite: str
    Key: str
    ROTPublicUID: str | int


class IntegrityParameters(TypedDict):
    MACLength: int
    CipherSuite: str
    AuthenticationKey: str
    AuthKeyLength: int
    KIV: str
    ROTPublicUID: str | int


class DownlinkProtection(TypedDict):
    MACLength: int
    KeyLength: int
    CipherSuite: str
    AuthenticationKey: str
    AuthKeyLength: int
    EncryptionKey: str
    KIV: str
    AESIV: str
    ROTPublicUID: str | int


async def rotate(call: Call, asked: Rotate) -> Rotated:
    """`Days` says nothing about continuous rotation."""
    ids = await selection.ids(call, asked.uids, asked.tags)
    if asked.type == Mode.CONTINUOUS:
        await keysets.rotate(call.tx, ids, Rotation(Mode.CONTINUOUS), call.now)
        return Rotated(None, adjusted=False)
    days = asked.days or DEFAULT_DAYS
    await keysets.rotate(call.tx, ids, Rotation(Mode.AUTOMATIC, days), call.now)
    adjusted = await keysets.shorten(
        call.tx, ids, wire.HEARTBEAT, days * DAY, default=wire.DEFAULT_HEARTBEAT, now=call.now
    )
    return Rotated(days, adjusted=adjusted > 0)


async def get_symmetric_key(call: Call, asked: GetSymmetricKey) -> Keyed:
    owner, root = await _owner_of(call, asked.key_id, "KeyID")
    await usage.count(call.tx, call.account.id, owner.id, USED_SYMMETRIC_KEY, call.now)
    return Keyed(owner.uid, derivation.symmetric_key(root, asked.key_id, asked.length or LONGEST_KEY))


async def get_uplink_protection(call: Call, asked: GetUplinkProtection) -> Uplink:
    header = asked.header
    owner, root = await _owner_of(call, header, "EncryptedHeader")
    await usage.count(call.tx, call.account.id, owner.id, USED_PROTECTION, call.now)
    kiv = None if call.account.strict_e2e else derivation.uplink_kiv(header)
    return Uplink(owner.uid, derivation.uplink_key(root, header), derivation.uplink_nonce(header), kiv)


async def get_uplink_integrity(call: Call, asked: GetUplinkIntegrity) -> Integrity:
    owner, root = await _owner_of(call, asked.header, "EncryptedHeader")
    key = derivation.uplink_integrity_key(root, asked.header)
    return Integrity(owner.uid, key, derivation.uplink_kiv(asked.header))


async def get_downlink_protection(call: Call, asked: GetDownlink) -> Downlink:
    root, kiv = await _next_kiv(call, asked.uid)
    return Downlink(asked.uid, derivation.downlink_keys(root, kiv), kiv)


async def get_downlink_integrity(call: Call, asked: GetDownlink) -> Integrity:
    root, kiv = await _next_kiv(call, asked.uid)
    return Integrity(asked.uid, derivation.downlink_integrity_key(root, kiv), kiv)


async def _owner_of(call: Call, header: bytes, field: str) -> tuple[Owner, bytes]:
    """Whose header or KeyID it is, and its root secret. Raises: Refusal DEVICE_UNKNOWN with `field`."""
    tail, middle = derivation.tail(header), derivation.middle(header)
    return _usable(await keysets.owner_by_tail(call.tx, call.account, tail, middle), field)


async def _next_kiv(call: Call, uid: str) -> tuple[bytes, bytes]:
    """The root secret, and a KIV that nobody else gets. Raises: Refusal DEVICE_UNKNOWN."""
    owner, root = _usable(await keysets.owner_by_uid(call.tx, call.account, uid), "ROTPublicUID")
    taken = await keysets.take(call.tx, owner.id, secrets.token_bytes(derivation.EPOCH_BYTES), call.now)
    return root, derivation.downlink_kiv(uid, taken.epoch, taken.counter)


def _usable(owner: Owner | None, field: str) -> tuple[Owner, bytes]:
    if owner is None or owner.disabled or not owner.secret:
        raise refusals.unknown_device(field)
    return owner, bytes.fromhex(owner.secret)


def _base64(value: bytes) -> str:
    return b64encode(value).decode()


def write_rotated(rotated: Rotated) -> wire.MarkedSaid:
    """In the vendor's words, where they are known."""
    if rotated.days is None:
        return {"Message": "The continuous rotation has been set."}
    days = "1 day" if rotated.days == 1 else f"{rotated.days} days"
    said = f"The automatic rotation has been set. The key will be rotated every {days}."
    if rotated.adjusted:
        said += f" The Security heartbeat has been adjusted to {days}."
    return {"Message": said}


def write_symmetric_key(found: Keyed) -> SymmetricKey:
    return {"Key": _base64(found.key), "ROTPublicUID": wire.write_uid_as_number(found.uid)}


def write_uplink_protection(found: Uplink) -> UplinkProtection:
    kiv: _Kiv = {} if found.kiv is None else {"KIV": _base64(found.kiv)}
    return {
        "Nonce": _base64(found.nonce),
        "MACLength": MAC_BITS,
        "CipherSuite": UPLINK_SUITE,
        "Key": _base64(found.key),
        **kiv,
        "ROTPublicUID": wire.write_uid_as_number(found.uid),
    }


def _write_integrity(found: Integrity, suite: str) -> IntegrityParameters:
    return {
        "MACLength": MAC_BITS,
        "CipherSuite": suite,
        "AuthenticationKey": _base64(found.key),
        "AuthKeyLength": KEY_BITS,
        "KIV": _base64(found.kiv),
        "ROTPublicUID": wire.write_uid_as_number(found.uid),
    }


def write_uplink_integrity(found: Integrity) -> IntegrityParameters:
    return _write_integrity(found, UPLINK_SUITE)


def write_downlink_integrity(found: Integrity) -> IntegrityParameters:
    return _write_integrity(found, DOWNLINK_SUITE)


def write_downlink_protection(found: Downlink) -> DownlinkProtection:
    return {
        "MACLength": MAC_BITS,
        "KeyLength": KEY_BITS,
        "CipherSuite": DOWNLINK_SUITE,
        "AuthenticationKey": _base64(found.keys.authentication),
        "AuthKeyLength": KEY_BITS,
        "EncryptionKey": _base64(found.keys.encryption),
        "KIV": _base64(found.kiv),
        "AESIV": _base64(found.keys.iv),
        "ROTPublicUID": wire.write_uid_as_number(found.uid),
    }
