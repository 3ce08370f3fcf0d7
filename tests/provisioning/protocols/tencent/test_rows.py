import base64
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.model.lifecycle import State
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Group, Product
from provisioning.model.spec import DeviceSpec, ProductSpec
from provisioning.protocols.tencent.rows import FORMS, read_row, write_row

PRODUCT: dict[str, Any] = {
    "type": "product", "protocol": "tencent", "productId": "ASJ2KF9GX1", "productSecret": "hzvf5LF9S0isvBhDSauWMaIk",
    "registerType": 2, "registerLimit": 1000, "encryptionType": 2,
}  # fmt: skip
DEVICE: dict[str, Any] = {
    "type": "device", "protocol": "tencent", "productId": "ASJ2KF9GX1", "deviceName": "xyz",
    "psk": "lDZ6Uqt+I9E0wW7rvDUs7Q==",
}  # fmt: skip


def made_of(row: dict[str, Any]) -> Product | Device:
    """What the registry has after the import of a row."""
    spec = read_row(row)
    if isinstance(spec, ProductSpec):
        return Product(
            protocol="tencent", key=spec.key, secret=spec.secret or "", name=spec.name or "",
            dynamic_activation=bool(spec.dynamic_activation), auto_create=bool(spec.auto_create),
            certificate_login=bool(spec.certificate_login), register_limit=spec.register_limit or None,
            client_authority=spec.client_authority or "", demo=bool(spec.demo),
        )  # fmt: skip
    assert isinstance(spec, DeviceSpec)
    return Device(
        protocol="tencent", state=State.ALLOCATED, product=spec.product or "", key=spec.key or "",
        secret=spec.secret or "", name=spec.name or "", disabled=bool(spec.disabled),
        self_registered=bool(spec.self_registered),
    )  # fmt: skip


@pytest.mark.parametrize("row", [
    PRODUCT,
    PRODUCT | {"registerType": 0, "encryptionType": 1, "caName": "factory", "name": "Pump"},
    PRODUCT | {"registerType": 1, "demo": True},
    {name: value for name, value in PRODUCT.items() if name != "registerLimit"},
    DEVICE,
    DEVICE | {"deviceName": "a:b_c-D", "disabled": True, "name": "Pumpe 1"},
    DEVICE | {"selfRegistered": True},
])  # fmt: skip
def test_what_was_imported_is_exported_exactly(row: dict[str, Any]) -> None:
    assert write_row(made_of(row)) == row


@pytest.mark.parametrize(("kind", "dynamic", "create"), [(0, False, False), (1, True, False), (2, True, True)])
def test_register_types(kind: int, *, dynamic: bool, create: bool) -> None:
    spec = read_row(PRODUCT | {"registerType": kind})
    assert isinstance(spec, ProductSpec)
    assert (spec.dynamic_activation, spec.auto_create) == (dynamic, create)


def test_what_is_not_stated_stays_as_it_is() -> None:
    spec = read_row({"type": "product", "protocol": "tencent", "productId": "X", "name": None})
    assert spec == ProductSpec(protocol="tencent", key="X")
    assert spec.forms is FORMS


def test_a_limit_and_an_authority_can_be_taken_away() -> None:
    spec = read_row(PRODUCT | {"registerLimit": 0, "caName": ""})
    assert isinstance(spec, ProductSpec)
    assert (spec.register_limit, spec.client_authority) == (0, "")


@pytest.mark.parametrize(
    ("row", "field", "rule"),
    [
        ({"type": "group"}, "type", "must be product or device"),
        ({"type": "product"}, "productId", "is missing"),
        ({"type": "device", "productId": "X"}, "deviceName", "is missing"),
        ({"type": "device", "deviceName": "X"}, "productId", "is missing"),
        (PRODUCT | {"productKey": "x"}, "productKey", "is not a field of this row; it has productId, "),
        (PRODUCT | {"productId": "a-b"}, "productId", "must be 1 to 32 of A-Z a-z 0-9 _"),
        (PRODUCT | {"productSecret": "short"}, "productSecret", "must be 16 to 32 visible ASCII characters"),
        (PRODUCT | {"productSecret": "x" * 33}, "productSecret", "must be 16 to 32 visible ASCII characters"),
        (PRODUCT | {"registerType": 3}, "registerType", "must be 0 (off), 1 (devices that are there) or 2 "),
        (PRODUCT | {"registerType": True}, "registerType", "must be 0 (off)"),
        (PRODUCT | {"registerLimit": 1_000_001}, "registerLimit", "must be a whole number up to 1000000; 0: no limit"),
        (PRODUCT | {"registerLimit": -1}, "registerLimit", "must be a whole number"),
        (PRODUCT | {"encryptionType": 0}, "encryptionType", "must be 1 (certificates) or 2 (keys)"),
        (PRODUCT | {"caName": "A B"}, "caName", "must be the name of an authority"),
        (DEVICE | {"deviceName": "a.b"}, "deviceName", "must be 1 to 48 of A-Z a-z 0-9 : _ -"),
        (DEVICE | {"psk": "a_b="}, "psk", "must be Base64, up to 64 characters"),
        (DEVICE | {"psk": ""}, "psk", "must be Base64"),
        (DEVICE | {"psk": "A" * 68}, "psk", "must be Base64"),
        (DEVICE | {"psk": "ä"}, "psk", "must be Base64"),
        (DEVICE | {"disabled": 1}, "disabled", "must be true or false"),
        (DEVICE | {"name": ""}, "name", "must be 1 to 64 characters"),
    ],
)
def test_refusals_are_for_people(row: dict[str, Any], field: str, rule: str) -> None:
    with pytest.raises(Refusal) as caught:
        read_row(row)
    assert caught.value.reason is Reason.MALFORMED
    assert caught.value.detail["field"] == field
    assert str(caught.value.detail["rule"]).startswith(rule)


def test_there_are_no_groups() -> None:
    with pytest.raises(Refusal) as caught:
        write_row(Group(protocol="tencent", key="g", password="p"))
    assert caught.value.detail["field"] == "group"


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70) | st.lists(st.integers())
NAMES = sorted({*PRODUCT, *DEVICE, "name", "caName", "demo", "disabled", "extra"} - {"type"})


@given(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["product", "device"]) | VALUES}, optional=dict.fromkeys(NAMES, VALUES)
    )
)
def test_any_row_is_read_or_refused(row: dict[str, Any]) -> None:
    try:
        spec = read_row(row)
    except Refusal as refusal:
        spec, detail = None, refusal.detail
    else:
        detail = {"field": "", "rule": ""}
    assert set(detail) == {"field", "rule"}
    assert spec is None or spec.protocol == "tencent"


# --- what is made up ---


@pytest.mark.parametrize(
    ("make", "form"),
    [
        (FORMS.product_key, r"[A-Z0-9]{10}"),
        (FORMS.product_secret, r"[A-Za-z0-9]{24}"),
        (FORMS.device_key, r"[A-Za-z0-9]{10}"),
        (FORMS.device_secret, r"[A-Za-z0-9+/]{22}=="),
        (FORMS.asset_id, r""),
    ],
)
def test_forms(make: Any, form: str) -> None:
    assert all(re.fullmatch(form, make()) for _ in range(50))


def test_what_is_made_up_may_be_imported() -> None:
    product = PRODUCT | {"productId": FORMS.product_key(), "productSecret": FORMS.product_secret()}
    assert write_row(made_of(product)) == product
    psk = FORMS.device_secret()
    assert len(base64.b64decode(psk, validate=True)) == 16
    device = DEVICE | {"deviceName": FORMS.device_key(), "psk": psk}
    assert write_row(made_of(device)) == device
