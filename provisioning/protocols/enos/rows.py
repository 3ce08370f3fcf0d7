"""The registry as NDJSON rows: what `gatehouse import` reads and `gatehouse export` writes."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Group, Product
from provisioning.model.spec import DeviceSpec, GroupSpec, ProductSpec, Spec
from provisioning.protocols.enos import wire

SECRET: Final = re.compile(r"[\x21-\x7e]{1,128}")
ASSET: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")

# How a field must look, and the words that say so.
Check = tuple[Callable[[Any], bool], str]


def _is_name(value: object) -> bool:
    try:
        wire.read_name(value, "deviceName")
    except Refusal:
        return False
    return True


def _pattern(form: re.Pattern[str], words: str) -> Check:
    return (lambda value: isinstance(value, str) and form.fullmatch(value) is not None), words


KEY: Final = _pattern(wire.KEY, "1 to 64 of A-Z a-z 0-9 _ . -")
SN: Final = _pattern(wire.SERIAL, "1 to 64 of A-Z a-z 0-9 : _ . -")
GROUP: Final = _pattern(wire.GROUP_ID, "1 to 64 characters")
PLAIN: Final = _pattern(SECRET, "1 to 128 visible ASCII characters")
NAME: Final = _pattern(wire.TEXT, "1 to 64 characters")
I18N: Final[Check] = (_is_name, 'text, or {"defaultValue": text, "i18nValue": {locale: text}}')
ZONE: Final[Check] = (lambda value: isinstance(value, str) and wire.is_timezone(value), "+08:00 or an IANA name")
FLAG: Final[Check] = (lambda value: isinstance(value, bool), "true or false")
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
    "assetId": ("asset", _pattern(ASSET, "1 to 64 of A-Z a-z 0-9 _ . -")),
    "deviceName": ("name", I18N),
    "timezone": ("timezone", ZONE),
    "disabled": ("disabled", FLAG),
}


def _refuse(name: str, rule: str) -> Refusal:
    return Refusal(Reason.MALFORMED, field=name, rule=rule)


def _fields(row: Mapping[str, object], table: Mapping[str, tuple[str, Check]]) -> dict[str, Any]:
    fields: dict[str, Any] = {"protocol": wire.PROTOCOL}
    for name, value in row.items():
        if name in {"type", "protocol"} or value is None:
            continue
        if name not in table:
            raise _refuse(name, f"is not a field of this row; it has {', '.join(table)}")
        target, (fits, words) = table[name]
        if not fits(value):
            raise _refuse(name, f"must be {words}")
        fields[target] = value
    return fields


def read_row(row: Mapping[str, object]) -> Spec:
    """What a row states.

    Raises:
        Refusal: MALFORMED, with details `field` and `rule` for a person.
    """
    match row.get("type"):
        case "product":
            fields = _fields(row, PRODUCT)
            if "key" not in fields:
                raise _refuse("productKey", "is missing")
            return ProductSpec(**fields)
        case "group":
            fields = _fields(row, REGISTRATION_GROUP)
            if "key" not in fields:
                raise _refuse("groupId", "is missing")
            return GroupSpec(**fields)
        case "device":
            return _device(_fields(row, DEVICE))
        case _:
            raise _refuse("type", "must be product, group or device")


def _device(fields: dict[str, Any]) -> DeviceSpec:
    if isinstance(fields.get("name"), dict):
        fields["name"], fields["name_i18n"] = wire.read_name(fields["name"], "deviceName")
    spec = DeviceSpec(**fields)
    if spec.serial and not spec.group:
        raise _refuse("groupId", "is missing: a deviceSn is unique in its group")
    if spec.key and not spec.product:
        raise _refuse("productKey", "is missing: a deviceKey is unique in its product")
    if not spec.key and not spec.serial:
        raise _refuse("deviceKey", "is missing, and so is deviceSn: give one of them")
    if spec.secret and not spec.key:
        raise _refuse("deviceKey", "is missing: a deviceSecret belongs to one")
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
