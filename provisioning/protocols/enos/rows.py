"""The registry as NDJSON rows: what `gatehouse import` reads and `gatehouse export` writes."""

import re
from collections.abc import Mapping
from typing import Any, Final

from provisioning.model.refusal import Refusal
from provisioning.model.registry import Device, Group, Product
from provisioning.model.spec import DeviceSpec, GroupSpec, ProductSpec, Spec
from provisioning.protocols.enos import wire
from provisioning.protocols.fields import FLAG, Check, pattern, refuse, renamed

SECRET: Final = re.compile(r"[\x21-\x7e]{1,128}")
ASSET: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def _is_name(value: object) -> bool:
    try:
        wire.read_name(value, "deviceName")
    except Refusal:
        return False
    return True


KEY: Final = pattern(wire.KEY, "1 to 64 of A-Z a-z 0-9 _ . -")
SN: Final = pattern(wire.SERIAL, "1 to 64 of A-Z a-z 0-9 : _ . -")
GROUP: Final = pattern(wire.GROUP_ID, "1 to 64 characters")
PLAIN: Final = pattern(SECRET, "1 to 128 visible ASCII characters")
NAME: Final = pattern(wire.TEXT, "1 to 64 characters")
I18N: Final[Check] = (_is_name, 'text, or {"defaultValue": text, "i18nValue": {locale: text}}')
ZONE: Final[Check] = (lambda value: isinstance(value, str) and wire.is_timezone(value), "+08:00 or an IANA name")
SECONDS: Final[Check] = (
    lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31,
    "whole seconds, 0: not checked",
)

# Row field -> (field of the spec, form). The first of each is required.
PRODUCT: Final[Mapping[str, tuple[str, Check]]] = {
    "productKey": ("key", KEY),
    "productSecret": ("secret", PLAIN),
    "name": ("name", NAME),
    "dynamicActivation": ("dynamic_activation", FLAG),
    "autoCreate": ("auto_create", FLAG),
    "certificateLogin": ("certificate_login", FLAG),
    "demo": ("demo", FLAG),
}
REGISTRATION_GROUP: Final[Mapping[str, tuple[str, Check]]] = {
    "groupId": ("key", GROUP),
    "password": ("password", PLAIN),
    "productKey": ("product", KEY),
    "name": ("name", NAME),
    "autoRegister": ("auto_register", FLAG),
    "autoActivation": ("auto_activation", FLAG),
    "signFreshness": ("freshness", SECONDS),
}
DEVICE: Final[Mapping[str, tuple[str, Check]]] = {
    "productKey": ("product", KEY),
    "deviceKey": ("key", KEY),
    "deviceSecret": ("secret", PLAIN),
    "groupId": ("group", GROUP),
    "deviceSn": ("serial", SN),
    "assetId": ("asset", pattern(ASSET, "1 to 64 of A-Z a-z 0-9 _ . -")),
    "deviceName": ("name", I18N),
    "timezone": ("timezone", ZONE),
    "disabled": ("disabled", FLAG),
}


def read_row(row: Mapping[str, object]) -> Spec:
    """What a row states.

    Raises:
        Refusal: MALFORMED, with details `field` and `rule` for a person.
    """
    match row.get("type"):
        case "product":
            fields = renamed(row, PRODUCT) | {"protocol": wire.PROTOCOL}
            if "key" not in fields:
                raise refuse("productKey", "is missing")
            return ProductSpec(**fields)
        case "group":
            fields = renamed(row, REGISTRATION_GROUP) | {"protocol": wire.PROTOCOL}
            if "key" not in fields:
                raise refuse("groupId", "is missing")
            return GroupSpec(**fields)
        case "device":
            return _device(renamed(row, DEVICE) | {"protocol": wire.PROTOCOL})
        case _:
            raise refuse("type", "must be product, group or device")


def _device(fields: dict[str, Any]) -> DeviceSpec:
    if isinstance(fields.get("name"), dict):
        fields["name"], fields["name_i18n"] = wire.read_name(fields["name"], "deviceName")
    spec = DeviceSpec(**fields)
    if spec.serial and not spec.group:
        raise refuse("groupId", "is missing: a deviceSn is unique in its group")
    if spec.key and not spec.product:
        raise refuse("productKey", "is missing: a deviceKey is unique in its product")
    if not spec.key and not spec.serial:
        raise refuse("deviceKey", "is missing, and so is deviceSn: give one of them")
    if spec.secret and not spec.key:
        raise refuse("deviceKey", "is missing: a deviceSecret belongs to one")
    return spec


def write_row(thing: Product | Group | Device) -> dict[str, object]:
    """The row that brings `thing` about again; its secrets are in it."""
    match thing:
        case Product():
            kind, table = "product", PRODUCT
        case Group():
            kind, table = "group", REGISTRATION_GROUP
        case Device():
            kind, table = "device", DEVICE
    row: dict[str, object] = {"type": kind, "protocol": wire.PROTOCOL}
    for name, (source, _) in table.items():
        value = getattr(thing, source)
        if value != "" and not (value is False and name in {"disabled", "demo", "certificateLogin"}):
            row[name] = value
    if isinstance(thing, Device) and thing.name_i18n:
        row["deviceName"] = {"defaultValue": thing.name, "i18nValue": thing.name_i18n}
    return row
