"""The registry as NDJSON rows: what `gatehouse import` reads and `gatehouse export` writes. And their forms."""

import base64
import re
import string
from collections.abc import Mapping
from typing import Any, Final

from provisioning.core import generate
from provisioning.model.registry import Device, Group, Product
from provisioning.model.spec import DeviceSpec, Forms, ProductSpec, Spec
from provisioning.protocols.fields import FLAG, Check, checked, pattern, refuse
from provisioning.protocols.tencent import wire
from provisioning.protocols.tencent.payload import CERTIFICATE_ENCRYPTION, KEY_ENCRYPTION

ID_LETTERS: Final = string.ascii_uppercase + string.digits
FORMS: Final = Forms(
    product_key=lambda: generate.alphanumeric(10, ID_LETTERS),  # clients' buffers, and where MQTT splits
    product_secret=lambda: generate.alphanumeric(24),
    device_key=generate.device_key,
    device_secret=lambda: generate.base64_key(16),  # clients decode it at once
    asset_id=str,
)

SECRET: Final = re.compile(r"[\x21-\x7e]{16,32}")
LONGEST_PSK: Final = 64
NAME: Final = re.compile(r"[^\x00\ud800-\udfff]{1,64}")
AUTHORITY: Final = re.compile(r"([a-z0-9][a-z0-9-]{0,39})?")
MOST_DEVICES: Final = 1_000_000


def _among(lowest: int, highest: int, words: str) -> Check:
    return (
        lambda value: isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest
    ), words  # fmt: skip


def _is_psk(value: object) -> bool:
    try:
        return isinstance(value, str) and 0 < len(value) <= LONGEST_PSK and bool(base64.b64decode(value, validate=True))
    except ValueError:
        return False


TITLE: Final = pattern(NAME, "1 to 64 characters")
PRODUCT_ID: Final = pattern(wire.PRODUCT_ID, "1 to 32 of A-Z a-z 0-9 _")

PRODUCT: Final[Mapping[str, Check]] = {
    "productId": PRODUCT_ID,
    "productSecret": pattern(SECRET, "16 to 32 visible ASCII characters"),
    "name": TITLE,
    "registerType": _among(0, 2, "0 (off), 1 (devices that are there) or 2 (any device)"),
    "registerLimit": _among(0, MOST_DEVICES, f"a whole number up to {MOST_DEVICES}; 0: no limit"),
    "encryptionType": _among(1, 2, "1 (certificates) or 2 (keys)"),
    "caName": pattern(AUTHORITY, "the name of an authority"),
    "demo": FLAG,
}
DEVICE: Final[Mapping[str, Check]] = {
    "productId": PRODUCT_ID,
    "deviceName": pattern(wire.DEVICE_NAME, "1 to 48 of A-Z a-z 0-9 : _ -"),
    "psk": (_is_psk, f"Base64, up to {LONGEST_PSK} characters"),
    "name": TITLE,
    "disabled": FLAG,
    "selfRegistered": FLAG,
}


def read_row(row: Mapping[str, object]) -> Spec:
    """What a row states.

    Raises:
        Refusal: MALFORMED, with details `field` and `rule` for a person.
    """
    match row.get("type"):
        case "product":
            return _product(checked(row, PRODUCT, "productId"))
        case "device":
            fields = checked(row, DEVICE, "productId", "deviceName")
            return DeviceSpec(
                protocol=wire.PROTOCOL, product=fields["productId"], key=fields["deviceName"], secret=fields.get("psk"),
                name=fields.get("name"), disabled=fields.get("disabled"),
                self_registered=fields.get("selfRegistered"), forms=FORMS,
            )  # fmt: skip
        case _:
            raise refuse("type", "must be product or device")


def _product(fields: Mapping[str, Any]) -> ProductSpec:
    kind, encryption = fields.get("registerType"), fields.get("encryptionType")
    return ProductSpec(
        protocol=wire.PROTOCOL, key=fields["productId"], secret=fields.get("productSecret"), name=fields.get("name"),
        dynamic_activation=None if kind is None else kind > 0, auto_create=None if kind is None else kind > 1,
        certificate_login=None if encryption is None else encryption == CERTIFICATE_ENCRYPTION,
        register_limit=fields.get("registerLimit"), client_authority=fields.get("caName"), demo=fields.get("demo"),
        forms=FORMS,
    )  # fmt: skip


def write_row(thing: Product | Group | Device) -> dict[str, object]:
    """The row that brings `thing` about again; its secrets are in it.

    Raises:
        Refusal: MALFORMED, for a group: Tencent has none.
    """
    match thing:
        case Product():
            kind = 0 if not thing.dynamic_activation else 2 if thing.auto_create else 1
            row: dict[str, object] = {
                "type": "product", "protocol": wire.PROTOCOL, "productId": thing.key, "productSecret": thing.secret,
                "name": thing.name, "registerType": kind, "registerLimit": thing.register_limit,
                "encryptionType": CERTIFICATE_ENCRYPTION if thing.certificate_login else KEY_ENCRYPTION,
                "caName": thing.client_authority, "demo": thing.demo,
            }  # fmt: skip
        case Device():
            row = {
                "type": "device", "protocol": wire.PROTOCOL, "productId": thing.product, "deviceName": thing.key,
                "psk": thing.secret, "name": thing.name, "disabled": thing.disabled,
                "selfRegistered": thing.self_registered,
            }  # fmt: skip
        case Group():
            raise refuse("group", "is not a thing of this protocol: its devices register with their product's secret")
    return {name: value for name, value in row.items() if value is not None and value != "" and value is not False}
