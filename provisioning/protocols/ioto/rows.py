"""The registry as NDJSON rows: what `gatehouse import` reads and `gatehouse export` writes."""

import re
from collections.abc import Mapping
from typing import Any, Final

from provisioning.model.claim import ClaimableSpec, ClaimedDevice, CloudType
from provisioning.model.registry import Device, Group, Product
from provisioning.model.spec import ProductSpec, Spec
from provisioning.protocols.fields import FLAG, Check, pattern, refuse, renamed
from provisioning.protocols.ioto import wire

TEXT: Final = re.compile(r"[^\x00-\x1f\x7f]{1,64}")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and TEXT.fullmatch(value) is not None and value.isprintable()


PRODUCT_TOKEN: Final = pattern(wire.TOKEN, "1 to 256 visible ASCII characters")
PRODUCT_KEY: Final = pattern(wire.PRODUCT_KEY, "P and 15 of a-z 2-7, as it is made of the productToken")
ID: Final = pattern(wire.DEVICE_ID, "1 to 64 of 0-9 A-Z a-z _ -")
NAME: Final[Check] = (_is_text, "1 to 64 printable characters")
CLOUD_TYPE: Final[Check] = (lambda value: value in list(CloudType), "hosted or dedicated")

# Row field -> (field of the spec, form).
PRODUCT: Final[Mapping[str, tuple[str, Check]]] = {
    "product": ("key", PRODUCT_KEY),
    "productToken": ("secret", PRODUCT_TOKEN),
    "name": ("name", NAME),
    "demo": ("demo", FLAG),
}
DEVICE: Final[Mapping[str, tuple[str, Check]]] = {
    "id": ("key", ID),
    "product": ("product", PRODUCT_KEY),
    "productToken": ("token", PRODUCT_TOKEN),
    "accountId": ("account", pattern(wire.ACCOUNT, "1 to 64 of 0-9 A-Z a-z _ -")),
    "cloudType": ("cloud_type", CLOUD_TYPE),
    "cloudName": ("cloud_name", pattern(wire.CLOUD, "1 to 64 of 0-9 A-Z a-z _ -")),
    "cloudRegion": ("cloud_region", pattern(wire.CLOUD, "1 to 64 of 0-9 A-Z a-z _ -")),
    "name": ("name", NAME),
    "disabled": ("disabled", FLAG),
}


def _key(key: str | None, token: str | None) -> str:
    """Key of the product that a row names, by its token, by its key, or by both."""
    if token is None:
        if key is None:
            raise refuse("productToken", "is missing")
        return key
    if wire.PRODUCT_KEY.fullmatch(token):
        raise refuse("productToken", "is the key of a product: a key belongs into product, and a token looks otherwise")
    if key not in {None, wire.product_key(token)}:
        raise refuse("productToken", "is not that of product: a product keeps its token")
    return wire.product_key(token)


def read_row(row: Mapping[str, object]) -> Spec:
    """What a row states.

    Raises:
        Refusal: MALFORMED, with details `field` and `rule` for a person.
    """
    match row.get("type"):
        case "product":
            fields = renamed(row, PRODUCT) | {"protocol": wire.PROTOCOL}
            token = fields.get("secret")
            fields["key"] = _key(fields.get("key"), token)
            return ProductSpec(**fields, certificate_login=True, must_exist=token is None)
        case "device":
            return _device(renamed(row, DEVICE) | {"protocol": wire.PROTOCOL})
        case _:
            raise refuse("type", "must be product or device")


def _device(fields: dict[str, Any]) -> ClaimableSpec:
    if "key" not in fields:
        raise refuse("id", "is missing")
    fields["product"] = _key(fields.get("product"), fields.pop("token", None))
    for name, (target, _) in DEVICE.items():
        if name.startswith("cloud") and target in fields and "account" not in fields:
            raise refuse("accountId", f"is missing: {name} is of a device that is claimed")
    if "cloud_type" in fields:
        fields["cloud_type"] = CloudType(fields["cloud_type"])
    return ClaimableSpec(**fields)


def write_row(thing: Product | Group | Device) -> dict[str, object]:
    """The row that brings `thing` about again. A product's token is in it; tokens of devices are not: nobody has them.

    Raises:
        Refusal: MALFORMED for a group: there are none.
    """
    if isinstance(thing, Group):
        raise refuse("type", "must be product or device: this protocol has no groups")
    kind = "product" if isinstance(thing, Product) else "device"
    row: dict[str, object] = {"type": kind, "protocol": wire.PROTOCOL}
    if isinstance(thing, Product):
        row |= {"product": thing.key, "productToken": thing.secret, "name": thing.name}
        return _stated(row) | ({"demo": True} if thing.demo else {})
    row |= {"id": thing.key, "product": thing.product, "name": thing.name}
    if isinstance(thing, ClaimedDevice):
        held = thing.claim
        row |= {
            "accountId": held.account, "cloudType": str(held.cloud_type), "cloudName": held.cloud_name,
            "cloudRegion": held.cloud_region,
        }  # fmt: skip
    return _stated(row) | ({"disabled": True} if thing.disabled else {})


def _stated(row: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in row.items() if value != ""}
