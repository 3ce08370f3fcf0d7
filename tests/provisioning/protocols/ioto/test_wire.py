"""Every request is read or refused; replies have the vendor's fields."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.model.claim import Claim, CloudType
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.update import Offer
from provisioning.protocols.ioto import refusals, wire

CLAIM = Claim(account="ACC1", cloud_type=CloudType.HOSTED, cloud_name="main", cloud_region="local")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
NAMES = (
    "id", "product", "productId", "account", "accountId", "cloud", "cloudName", "name", "test", "version", "update",
    "success", "limit", "next", "prev",
)  # fmt: skip
BODIES = JSON | st.dictionaries(
    st.sampled_from(NAMES), JSON | st.sampled_from(["CLAIM00001", "T", "ACC1", "main", "5", 5, True])
)


def refused(read: Any, *arguments: object) -> str:
    """The words with which a request is turned down."""
    with pytest.raises(Refusal) as caught:
        read(*arguments)
    assert caught.value.reason is Reason.MALFORMED
    row = refusals.write_error(caught.value)
    assert row.status == 400
    return row.text


# --- names ---


def test_a_product_key_is_made_of_the_token_and_does_not_tell_it() -> None:
    key = wire.product_key("PRODTOKEN1")
    assert wire.PRODUCT_KEY.fullmatch(key)
    assert wire.product_key(key) == key, "people may name a product by either"
    assert wire.key_of_bearer(key) != key, "but nobody proves anything with a key"
    assert wire.key_of_bearer("PRODTOKEN1") == key


@given(st.text())
def test_every_token_has_a_key(token: str) -> None:
    assert wire.PRODUCT_KEY.fullmatch(wire.key_of_bearer(token))


@pytest.mark.parametrize(
    "header", ["T1", " T1 ", "bearer T1", "Bearer T1", "BEARER   T1 ", "bearer\tT1".replace("\t", " ")]
)
def test_both_forms_of_authorization(header: str) -> None:
    assert wire.read_authorization(header) == "T1"


@given(st.text() | st.text().map("bearer {}".format))
def test_every_authorization_is_read_or_refused(header: str) -> None:
    token = None
    try:
        token = wire.read_authorization(header)
    except Refusal as refusal:
        assert refusal.reason is Reason.NOT_PROVEN  # noqa: PT017 - either is fine
        assert refusals.write_checkin_error(refusal).text == "Access denied"  # noqa: PT017
    assert token is None or wire.TOKEN.fullmatch(token)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("mqtt.example.org", True), ("localhost", True), ("192.0.2.1", False), ("[::1]", False), ("::1", False),
        ("*.example.org", False), ("", False), ("a b", False),
    ],
)  # fmt: skip
def test_dns_names(text: str, *, is_one: bool) -> None:
    assert wire.is_dns_name(text) is is_one


# --- requests ---


@given(BODIES)
def test_every_body_is_read_or_refused(body: object) -> None:
    for read, arguments in (
        (wire.read_register, (body, "T")), (wire.read_checkin, (body, "D", "P")), (wire.read_report, (body, "D")),
        (wire.read_get_certs, (body, "D")), (wire.read_claim, (body,)), (wire.read_device, (body,)),
        (wire.read_find, (body,)),
    ):  # fmt: skip
        try:
            read(*arguments)
        except Refusal as refusal:
            assert refusal.reason is Reason.MALFORMED  # noqa: PT017 - either is fine
            assert refusals.write_error(refusal).text not in {"", "Cannot find device", "Authentication failed"}  # noqa: PT017


def test_a_registration() -> None:
    body = {"id": "CLAIM00001", "product": "T", "name": " Dev\x00\n1 ", "test": True, "account": "A", "cloud": "c"}
    said = wire.read_register(body, "T")
    assert (said.device, said.name, said.test, said.account, said.cloud) == ("CLAIM00001", "Dev  1", True, "A", "c")
    assert said.body == body | {"product": wire.product_key("T")}, "all of it but the secret"
    plain = wire.read_register({"id": "D", "product": wire.product_key("T"), "test": "yes", "name": 7}, "T")
    assert (plain.name, plain.test, plain.account, plain.cloud) == ("", False, "", "")


@pytest.mark.parametrize("device", ["0", "x" * 64, "0-_z", "CLAIM00001"])
def test_device_ids(device: str) -> None:
    assert wire.read_device({"id": device}) == device


@pytest.mark.parametrize("device", ["x" * 65, "a b", "a/b", "+", "ä", "a\n", 1, [], {}, True])
def test_what_is_no_device_id(device: object) -> None:
    assert refused(wire.read_device, {"id": device}) == "Invalid device id"


def test_a_checkin() -> None:
    said = wire.read_checkin({"test": False, "version": "1.3.0", "more": 1}, "D", "P")
    assert (said.test, said.version, said.fields["more"]) == (False, "1.3.0", 1)
    bare = wire.read_checkin({"id": "D", "test": 1, "version": ""}, "D", "P")
    assert (bare.test, bare.version) == (None, None)


def test_a_search() -> None:
    asked = wire.read_find({"productId": "T", "accountId": "A", "limit": 5, "next": "7"})
    assert asked == wire.Find(product=wire.product_key("T"), account="A", after=7, limit=5)
    assert wire.read_find({}) == wire.Find(limit=wire.MOST_RECORDS)
    assert wire.read_find({"prev": "9"}).before == 9
    wrong: list[dict[str, object]] = [
        {"limit": 0}, {"limit": True}, {"limit": 101}, {"next": 7}, {"next": "7", "prev": "8"}, {"prev": "9" * 19},
        {"product": [1]}, {"accountId": "#"},
    ]  # fmt: skip
    for body in wrong:
        assert refused(wire.read_find, body).startswith("Invalid ")


# --- replies ---


def test_replies() -> None:
    assert json.dumps(wire.write_registered()) == '{"registered": true}'
    assert wire.write_claimed("D", CLAIM, api="https://h", token="T") == {
        "registered": True, "api": "https://h", "token": "T", "id": "D", "cloudType": "hosted", "cloudName": "main",
        "cloudRegion": "local",
    }  # fmt: skip
    offer = Offer(checksum="41bb", version="1.4.0", update_id="upd1", file="f", size=14)
    assert wire.write_offer(offer, "https://u") == {
        "checksum": "41bb", "version": "1.4.0", "url": "https://u", "update": "upd1",
    }  # fmt: skip
    assert "url" not in wire.write_offer(None, "https://u")
    assert wire.write_blocked(5) == {"error": "Device is blocked", "delay": 5}


@given(st.datetimes(timezones=st.just(UTC)))
def test_dates(moment: datetime) -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", wire.write_date(moment))


def test_what_is_handed_over_is_not_shown() -> None:
    assert "PRIVATE" not in repr(wire.Certified(certificate="c", key="PRIVATE", host="h", port=1))
