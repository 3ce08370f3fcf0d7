"""Rows of the registry, both ways from one list; every field rule; and no row that is not read or refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.model.claim import Claim, ClaimableSpec, ClaimedDevice, CloudType
from provisioning.model.lifecycle import State
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Group, Product
from provisioning.model.spec import ProductSpec, Spec
from provisioning.protocols.ioto import rows, wire

TOKEN = "01HQ5T0KENF0RPR0DUCT0000AB"
KEY = wire.product_key(TOKEN)
PRODUCT: dict[str, object] = {"type": "product", "protocol": "ioto"}
DEVICE: dict[str, object] = {"type": "device", "protocol": "ioto", "id": "CLAIM00001"}
CLAIM = Claim(account="ACC1", cloud_type=CloudType.DEDICATED, cloud_name="main", cloud_region="local")
CLAIMED: dict[str, object] = {
    "accountId": "ACC1", "cloudType": "dedicated", "cloudName": "main", "cloudRegion": "local",
}  # fmt: skip

# What is in the registry, the row that is written of it, and what that row states when it is read again.
BOTH_WAYS: list[tuple[Product | Device, dict[str, object], Spec]] = [
    (
        Product(protocol="ioto", key=KEY, secret=TOKEN, name="Sensor", certificate_login=True),
        PRODUCT | {"product": KEY, "productToken": TOKEN, "name": "Sensor"},
        ProductSpec(protocol="ioto", key=KEY, secret=TOKEN, name="Sensor", certificate_login=True),
    ),
    (
        Product(protocol="ioto", key=KEY, secret=TOKEN, demo=True),
        PRODUCT | {"product": KEY, "productToken": TOKEN, "demo": True},
        ProductSpec(protocol="ioto", key=KEY, secret=TOKEN, demo=True, certificate_login=True),
    ),
    (
        Device(protocol="ioto", state=State.REGISTERED, product=KEY, key="CLAIM00001", name="Dev"),
        DEVICE | {"product": KEY, "name": "Dev"},
        ClaimableSpec(protocol="ioto", product=KEY, key="CLAIM00001", name="Dev"),
    ),
    (
        ClaimedDevice(
            protocol="ioto", state=State.ACTIVATED, product=KEY, key="CLAIM00001", secret="s", disabled=True,
            claim=CLAIM,
        ),
        DEVICE | {"product": KEY, "disabled": True} | CLAIMED,
        ClaimableSpec(
            protocol="ioto", product=KEY, key="CLAIM00001", disabled=True, account="ACC1", cloud_name="main",
            cloud_region="local", cloud_type=CloudType.DEDICATED,
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("thing", "row", "spec"), BOTH_WAYS)
def test_both_ways(thing: Product | Device, row: dict[str, object], spec: Spec) -> None:
    assert rows.write_row(thing) == row
    assert rows.read_row(json.loads(json.dumps(row))) == spec


def test_a_token_names_the_product() -> None:
    product = rows.read_row(PRODUCT | {"productToken": TOKEN})
    assert product == ProductSpec(protocol="ioto", key=KEY, secret=TOKEN, certificate_login=True)
    device = rows.read_row(DEVICE | {"productToken": TOKEN, "accountId": "ACC1"})
    assert device == ClaimableSpec(protocol="ioto", product=KEY, key="CLAIM00001", account="ACC1")


def test_a_key_alone_makes_no_product() -> None:
    spec = rows.read_row(PRODUCT | {"product": KEY, "name": "n"})
    assert isinstance(spec, ProductSpec)
    assert spec.must_exist


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"type": "group"}, "type"),
        ({"type": ["device"]}, "type"),
        (PRODUCT, "productToken"),
        (PRODUCT | {"productToken": KEY}, "productToken"),
        (PRODUCT | {"productToken": "other", "product": KEY}, "productToken"),
        (PRODUCT | {"productToken": "a b"}, "productToken"),
        (PRODUCT | {"productToken": "x" * 257}, "productToken"),
        (PRODUCT | {"productToken": 7}, "productToken"),
        (PRODUCT | {"product": "p"}, "product"),
        (PRODUCT | {"productToken": TOKEN, "secret": "x"}, "secret"),
        (PRODUCT | {"productToken": TOKEN, "name": "a\x7f"}, "name"),
        (DEVICE, "productToken"),
        ({"type": "device", "productToken": TOKEN}, "id"),
        (DEVICE | {"id": "x" * 65, "productToken": TOKEN}, "id"),
        (DEVICE | {"id": "a/b", "productToken": TOKEN}, "id"),
        (DEVICE | {"productToken": TOKEN, "accountId": "#"}, "accountId"),
        (DEVICE | {"productToken": TOKEN, "cloudType": "hosted"}, "accountId"),
        (DEVICE | {"productToken": TOKEN, "cloudName": "main"}, "accountId"),
        (DEVICE | {"productToken": TOKEN, "accountId": "A", "cloudType": "private"}, "cloudType"),
        (DEVICE | {"productToken": TOKEN, "accountId": "A", "cloudType": ["hosted"]}, "cloudType"),
        (DEVICE | {"productToken": TOKEN, "disabled": 1}, "disabled"),
    ],
)
def test_refused_rows_name_the_field(row: dict[str, object], field: str) -> None:
    with pytest.raises(Refusal) as refused:
        rows.read_row(row)
    assert (refused.value.reason, refused.value.detail["field"]) == (Reason.MALFORMED, field)
    assert TOKEN not in str(refused.value), "a token is a secret"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
VALUES = JSON | st.sampled_from([TOKEN, KEY, "hosted", "CLAIM00001", True])


@given(
    kind=st.sampled_from(["product", "device"]) | JSON,
    fields=st.dictionaries(st.sampled_from([*rows.PRODUCT, *rows.DEVICE, "other"]), VALUES),
)
def test_every_row_is_read_or_refused(kind: object, fields: dict[str, Any]) -> None:
    try:
        spec = rows.read_row({"type": kind, "protocol": "ioto", **fields})
    except Refusal as refusal:
        assert {"field", "rule"} <= refusal.detail.keys()  # noqa: PT017 - either is fine
    else:
        assert isinstance(spec, ProductSpec | ClaimableSpec)


def test_there_are_no_groups() -> None:
    with pytest.raises(Refusal):
        rows.write_row(Group(protocol="ioto", key="g", password="p"))
