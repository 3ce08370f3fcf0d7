"""Rows of the registry, both ways from one list; every field rule; and no row that is not read or refused."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioning.model.lifecycle import State
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Group, Product
from provisioning.model.spec import DeviceSpec, GroupSpec, ProductSpec, Spec
from provisioning.protocols.enos import rows

PRODUCT: dict[str, object] = {"type": "product", "protocol": "enos", "productKey": "pk1"}
GROUP: dict[str, object] = {"type": "group", "protocol": "enos", "groupId": "g1"}
DEVICE: dict[str, object] = {"type": "device", "protocol": "enos", "productKey": "pk1", "deviceKey": "dk1"}

# What is in the registry, the row that is written of it, and what that row states when it is read again.
BOTH_WAYS: list[tuple[Product | Group | Device, dict[str, object], Spec]] = [
    (
        Product(protocol="enos", key="pk1", secret="ps1", name="Pump", dynamic_activation=True, auto_create=True),
        PRODUCT | {"productSecret": "ps1", "name": "Pump", "dynamicActivation": True, "autoCreate": True},
        ProductSpec(protocol="enos", key="pk1", secret="ps1", name="Pump", dynamic_activation=True, auto_create=True),
    ),
    (
        Product(protocol="enos", key="pk1", secret="ps1"),
        PRODUCT | {"productSecret": "ps1", "dynamicActivation": False, "autoCreate": False},
        ProductSpec(protocol="enos", key="pk1", secret="ps1", dynamic_activation=False, auto_create=False),
    ),
    (
        Group(
            protocol="enos", key="Werk 7/Süd", password="gp1", product="pk1", name="Line", auto_register=False,
            auto_activation=True, freshness=0,
        ),
        GROUP | {"groupId": "Werk 7/Süd", "password": "gp1", "productKey": "pk1", "name": "Line", "autoRegister": False,
                 "autoActivation": True, "signFreshness": 0},
        GroupSpec(
            protocol="enos", key="Werk 7/Süd", password="gp1", product="pk1", name="Line", auto_register=False,
            auto_activation=True, freshness=0,
        ),
    ),
    (
        Group(protocol="enos", key="g1", password="gp1"),
        GROUP | {"password": "gp1", "autoRegister": True, "autoActivation": False, "signFreshness": 900},
        GroupSpec(
            protocol="enos", key="g1", password="gp1", auto_register=True, auto_activation=False, freshness=900
        ),
    ),
    (
        Device(
            protocol="enos", state=State.ACTIVATED, product="pk1", key="dk1", secret="ds1", group="g1", serial="SN:1",
            asset="as1", name="泵", timezone="+08:00", disabled=True, activations=3, id=7, online=True,
        ),
        DEVICE | {"deviceSecret": "ds1", "groupId": "g1", "deviceSn": "SN:1", "assetId": "as1", "deviceName": "泵",
                  "timezone": "+08:00", "disabled": True},
        DeviceSpec(
            protocol="enos", product="pk1", key="dk1", secret="ds1", group="g1", serial="SN:1", asset="as1", name="泵",
            timezone="+08:00", disabled=True,
        ),
    ),
    (
        Device(protocol="enos", state=State.ALLOCATED, product="pk1", key="dk1", secret="ds1"),
        DEVICE | {"deviceSecret": "ds1"},
        DeviceSpec(protocol="enos", product="pk1", key="dk1", secret="ds1"),
    ),
    (
        Device(protocol="enos", state=State.REGISTERED, group="g1", serial="SN1"),
        {"type": "device", "protocol": "enos", "groupId": "g1", "deviceSn": "SN1"},
        DeviceSpec(protocol="enos", group="g1", serial="SN1"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("thing", "row", "spec"), BOTH_WAYS)
def test_both_ways(thing: Product | Group | Device, row: dict[str, object], spec: Spec) -> None:
    assert rows.write_row(thing) == row
    assert rows.read_row(row) == spec


@pytest.mark.parametrize(
    ("row", "spec"),
    [
        (PRODUCT, ProductSpec(protocol="enos", key="pk1")),
        (PRODUCT | {"productSecret": None, "name": None}, ProductSpec(protocol="enos", key="pk1")),
        (GROUP, GroupSpec(protocol="enos", key="g1")),
        (DEVICE, DeviceSpec(protocol="enos", product="pk1", key="dk1")),
        (DEVICE | {"deviceKey": None, "groupId": "g1", "deviceSn": "1"},
         DeviceSpec(protocol="enos", product="pk1", group="g1", serial="1")),
        (DEVICE | {"timezone": "Europe/Berlin", "disabled": False},
         DeviceSpec(protocol="enos", product="pk1", key="dk1", timezone="Europe/Berlin", disabled=False)),
    ],
)  # fmt: skip
def test_what_is_not_stated_stays_unstated(row: dict[str, object], spec: Spec) -> None:
    assert rows.read_row(row) == spec


NOT_KEYS: list[object] = [
    "",
    "x" * 65,
    "a/b",
    "a+b",
    "a#b",
    "a&b",
    "a:b",
    "a|b",
    "a b",
    "ä",
    "a\n",
    "\ud800",
    1,
    True,
    [],
    {},
]
NOT_SECRETS: list[object] = ["", "x" * 129, "a b", "a\n", "ä", "\x7f", "\0", "\ud800", 1, False, []]
NOT_FLAGS: list[object] = ["true", "", 0, 1, [], {}]
NOT_NAMES: list[object] = ["", "x" * 65, "\0", "\ud800", 1, True, {}]
NOT_GROUPS: list[object] = ["", "x" * 65, "a\n", "\ud800", 1, []]
BAD: list[tuple[dict[str, object], str, list[object]]] = [
    (dict(PRODUCT), "productKey", NOT_KEYS),
    (dict(PRODUCT), "productSecret", NOT_SECRETS),
    (dict(PRODUCT), "name", NOT_NAMES),
    (dict(PRODUCT), "dynamicActivation", NOT_FLAGS),
    (dict(PRODUCT), "autoCreate", NOT_FLAGS),
    (dict(GROUP), "groupId", NOT_GROUPS),
    (dict(GROUP), "password", NOT_SECRETS),
    (dict(GROUP), "productKey", NOT_KEYS),
    (dict(GROUP), "name", NOT_NAMES),
    (dict(GROUP), "autoRegister", NOT_FLAGS),
    (dict(GROUP), "autoActivation", NOT_FLAGS),
    (dict(GROUP), "signFreshness", [-1, 2**31, 10**5000, True, 1.5, "900", []]),
    (dict(DEVICE), "productKey", NOT_KEYS),
    (dict(DEVICE), "deviceKey", NOT_KEYS),
    (dict(DEVICE), "deviceSecret", NOT_SECRETS),
    (dict(DEVICE), "groupId", NOT_GROUPS),
    (dict(DEVICE), "deviceSn", ["", "x" * 65, "a/b", "ä", 1, True]),
    (dict(DEVICE), "assetId", ["", "x" * 65, "a:b", 1, True]),
    (dict(DEVICE), "deviceName", NOT_NAMES),
    (dict(DEVICE), "timezone", ["", "08:00", "+15:00", "Mars/Olympus", "+0\u0668:00", 8, True, []]),
    (dict(DEVICE), "disabled", NOT_FLAGS),
]


@pytest.mark.parametrize(("row", "field", "values"), BAD, ids=[f"{row['type']}-{field}" for row, field, _ in BAD])
def test_field_rules(row: dict[str, object], field: str, values: list[object]) -> None:
    for value in values:
        assert refusal_of(row | {field: value}) == field


def refusal_of(row: dict[str, object]) -> object:
    """The field that is named; the rule must be there for people."""
    with pytest.raises(Refusal) as caught:
        rows.read_row(row)
    assert caught.value.reason is Reason.MALFORMED
    assert isinstance(caught.value.detail["rule"], str)
    return caught.value.detail["field"]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({}, "type"),
        ({"type": None}, "type"),
        ({"type": "devices"}, "type"),
        ({"type": ["device"]}, "type"),
        ({"type": "product"}, "productKey"),
        ({"type": "group"}, "groupId"),
        ({"type": "device"}, "deviceKey"),
        ({"type": "device", "productKey": "pk1"}, "deviceKey"),
        ({"type": "device", "deviceKey": "dk1"}, "productKey"),
        ({"type": "device", "deviceSn": "SN1"}, "groupId"),
        ({"type": "device", "deviceSn": "SN1", "productKey": "pk1", "deviceKey": "dk1"}, "groupId"),
        ({"type": "device", "deviceSn": "SN1", "groupId": "g1", "deviceSecret": "ds1"}, "deviceKey"),
        (PRODUCT | {"deviceKey": "dk1"}, "deviceKey"),
        (PRODUCT | {"productkey": "pk1"}, "productkey"),
        (DEVICE | {"": 1}, ""),
    ],
)
def test_rows_that_cannot_be(row: dict[str, object], field: str) -> None:
    assert refusal_of(row) == field


def test_unknown_field_is_told_what_there_is() -> None:
    with pytest.raises(Refusal) as caught:
        rows.read_row(PRODUCT | {"secret": "x"})
    assert "productSecret" in str(caught.value.detail["rule"])
    assert "'x'" not in str(caught.value)


text = st.text(st.characters()) | st.sampled_from(["\ud800", "\0", "", "pk1", "product", "group", "device", "+08:00"])
anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**4000) | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(sorted({"type", "protocol", *rows.PRODUCT, *rows.REGISTRATION_GROUP, *rows.DEVICE}))


@settings(deadline=None)  # time is not what is tested
@given(st.sampled_from([PRODUCT, GROUP, DEVICE, {}]), st.dictionaries(fields | text, anything, max_size=4))
def test_any_row_is_read_or_refused(row: dict[str, object], change: dict[str, object]) -> None:
    try:
        spec = rows.read_row(row | change)
    except Refusal as refusal:
        reason, detail = refusal.reason, set(refusal.detail)
    else:
        assert isinstance(spec, ProductSpec | GroupSpec | DeviceSpec)
        return
    assert (reason, detail) == (Reason.MALFORMED, {"field", "rule"})


def test_localized_name_survives_a_round_trip() -> None:
    row = {
        "type": "device", "protocol": "enos", "productKey": "pk", "deviceKey": "dk",
        "deviceName": {"defaultValue": "Pump", "i18nValue": {"de_DE": "Pumpe"}},
    }  # fmt: skip
    spec = rows.read_row(row)
    assert isinstance(spec, DeviceSpec)
    assert (spec.name, spec.name_i18n) == ("Pump", {"de_DE": "Pumpe"})
    device = Device(
        protocol="enos", state=State.ALLOCATED, product="pk", key="dk", name="Pump", name_i18n={"de_DE": "Pumpe"}
    )
    assert rows.write_row(device)["deviceName"] == row["deviceName"]


def test_demo_product_says_so_in_its_row() -> None:
    spec = rows.read_row({"type": "product", "protocol": "enos", "productKey": "pk", "demo": True})
    assert isinstance(spec, ProductSpec)
    assert spec.demo is True
    assert rows.write_row(Product(protocol="enos", key="pk", secret="s", demo=True))["demo"] is True
    assert "demo" not in rows.write_row(Product(protocol="enos", key="pk", secret="s"))
