"""The registry as NDJSON rows: what `gatehouse import` reads and `gatehouse export` writes."""

import re
from collections.abc import Mapping
from typing import Final

from provisioning.model.account import (
    AccountProduct,
    AccountSpec,
    ModuleDevice,
    ModuleSpec,
    ProfileGroup,
    ProfileSpec,
)
from provisioning.model.registry import Device, Group, Product
from provisioning.model.spec import Spec
from provisioning.protocols.fields import FLAG, Check, pattern, refuse, renamed
from provisioning.protocols.ublox import wire

API_KEY: Final = pattern(re.compile(r"[0-9A-Za-z_.-]{1,64}"), "1 to 64 of 0-9 A-Z a-z _ . -, a UUID as a rule")
API_SECRET: Final = pattern(re.compile(r"[!-~]{16,128}"), "16 to 128 visible ASCII characters")
SHA256: Final = pattern(re.compile(r"[0-9a-f]{64}"), "64 hex digits, lower case")
PROFILE_UID: Final = pattern(re.compile(r"[0-9A-Za-z_-]{21,22}"), "22 URL-safe Base64 characters")
ROOT_SECRET: Final = pattern(re.compile(r"[0-9A-Fa-f]{64}"), "64 hex digits")
SERIAL: Final = pattern(re.compile(r"[ -~]{1,16}"), "1 to 16 printable ASCII characters")
IMEI: Final = pattern(re.compile(r"[0-9]{14,16}"), "14 to 16 digits")


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 255 and value.isprintable()  # noqa: PLR2004


def _is_uid(value: object) -> bool:
    try:
        wire.read_uid(value)
    except ValueError:
        return False
    return True


NAME: Final[Check] = (_is_name, "1 to 255 printable characters")
UID: Final[Check] = (_is_uid, "up to 16 hex digits")

# Row field -> (field of the spec, form).
ACCOUNT: Final[Mapping[str, tuple[str, Check]]] = {
    "apiKey": ("key", API_KEY),
    "apiSecret": ("secret", API_SECRET),
    "apiSecretSha256": ("secret_hash", SHA256),
    "name": ("name", NAME),
    "strictE2E": ("strict_e2e", FLAG),
    "certificateManagement": ("certificates", FLAG),
    "demo": ("demo", FLAG),
}
PROFILE: Final[Mapping[str, tuple[str, Check]]] = {
    "apiKey": ("product", API_KEY),
    "deviceProfileUID": ("key", PROFILE_UID),
    "profileName": ("name", NAME),
    "whitelistCheck": ("whitelist_check", FLAG),
}
DEVICE: Final[Mapping[str, tuple[str, Check]]] = {
    "apiKey": ("product", API_KEY),
    "rotPublicUID": ("key", UID),
    "rootSecret": ("secret", ROOT_SECRET),
    "deviceSerialNumber": ("device_serial", SERIAL),
    "imei": ("imei", IMEI),
    "name": ("name", NAME),
    "disabled": ("disabled", FLAG),
}


def read_row(row: Mapping[str, object]) -> Spec:
    """What a row states.

    Raises:
        Refusal: MALFORMED, with details `field` and `rule` for a person.
    """
    match row.get("type"):
        case "account":
            fields = renamed(row, ACCOUNT)
            _require(fields, ACCOUNT, "apiKey")
            if "secret" in fields and "secret_hash" in fields:
                raise refuse("apiSecretSha256", "goes without apiSecret")
            if "secret_hash" in fields:
                fields["secret_hash"] = bytes.fromhex(fields["secret_hash"])
            return AccountSpec(protocol=wire.PROTOCOL, **fields)
        case "profile":
            fields = renamed(row, PROFILE)
            _require(fields, PROFILE, "apiKey", "deviceProfileUID")
            return ProfileSpec(protocol=wire.PROTOCOL, **fields)
        case "device":
            fields = renamed(row, DEVICE)
            _require(fields, DEVICE, "apiKey", "rotPublicUID")
            fields["key"] = wire.read_uid(fields["key"])
            if "secret" in fields:
                fields["secret"] = fields["secret"].lower()
            return ModuleSpec(protocol=wire.PROTOCOL, **fields)
        case _:
            raise refuse("type", "must be account, profile or device")


def _require(fields: Mapping[str, object], table: Mapping[str, tuple[str, Check]], *names: str) -> None:
    for name in names:
        if table[name][0] not in fields:
            raise refuse(name, "is missing")


def write_row(thing: Product | Group | Device) -> dict[str, object]:
    """The row that brings `thing` about again, secrets included; of an API secret its hash, for nobody has it."""
    match thing:
        case Product():
            row: dict[str, object] = {"type": "account", "apiKey": thing.key}
        case Group():
            row = {"type": "profile", "apiKey": thing.product, "deviceProfileUID": thing.key, "profileName": thing.name}
        case Device():
            row = {"type": "device", "apiKey": thing.product, "rotPublicUID": thing.key, "rootSecret": thing.secret}
    match thing:
        case AccountProduct():
            row |= {
                "apiSecretSha256": thing.secret_hash.hex(), "strictE2E": thing.strict_e2e,
                "certificateManagement": thing.certificates,
            }  # fmt: skip
        case ProfileGroup():
            row |= {"whitelistCheck": thing.whitelist_check}
        case ModuleDevice():
            row |= {"deviceSerialNumber": thing.device_serial, "imei": thing.imei}
    if not isinstance(thing, Group):
        row["name"] = thing.name
    if isinstance(thing, Product) and thing.demo:
        row["demo"] = True
    if isinstance(thing, Device) and thing.disabled:
        row["disabled"] = True
    return {"protocol": wire.PROTOCOL} | {name: value for name, value in row.items() if value != ""}
