import json
from base64 import b64decode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.core.gateway import Outcome
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.tencent import gateway_wire
from provisioning.protocols.tencent.gateway_wire import RESULTS, BindClaim, Entry, Result, Verb, read_request
from tests.tencent import VECTORS

STATED: dict[str, Any] = {
    "product_id": "ASJ2KF9GX1", "device_name": "xyz", "signature": "7S8=", "random": 121213, "timestamp": 1589786839,
    "signmethod": "hmacsha256", "authtype": "psk",
}  # fmt: skip


def read(verb: str, *devices: object) -> tuple[Entry, ...]:
    return read_request(json.dumps({"type": verb, "payload": {"devices": devices}}).encode()).entries


def bind(**more: object) -> BindClaim | Identity | Result:
    stated = {name: value for name, value in (STATED | more).items() if value is not ...}
    return read("bind", stated)[0].asked


@pytest.mark.parametrize("vector", VECTORS["gateway_bind_signature"], ids=lambda vector: vector["name"])
def test_signatures(vector: dict[str, Any]) -> None:
    said = vector["inputs"]
    claim = bind(signature=vector["expected"], signmethod=said["signmethod"])
    assert isinstance(claim, BindClaim)
    assert claim.proven_by(said["psk"])
    assert not claim.proven_by(said["psk"].swapcase())
    key = b64decode(said["psk"]) if said["key_form"] == "decoded" else said["psk"].encode()
    assert claim.sign(key) == vector["expected"]
    for wrong in (vector["expected"][:-1], vector["expected"] + "=", vector["expected"].lower()):
        changed = bind(signature=wrong, signmethod=said["signmethod"])
        assert isinstance(changed, BindClaim)
        assert not changed.proven_by(said["psk"])


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"product_id": ...}, 801), ({"product_id": 7}, 801), ({"product_id": "a-b"}, 801), ({"product_id": ""}, 801),
        ({"device_name": ...}, 802), ({"device_name": 7}, 802), ({"device_name": "a/b"}, 802),
        ({"device_name": "x" * 49}, 802), ({"device_name": "\ud800"}, 802),
        ({"signature": ...}, 801), ({"signature": 7}, 801), ({"signature": ""}, 801),
        ({"random": ...}, 801), ({"random": True}, 801), ({"random": -1}, 801), ({"random": 1.5}, 801),
        ({"random": "1x"}, 801), ({"random": 10**20}, 801), ({"random": "9" * 21}, 801), ({"random": "٣"}, 801),
        ({"timestamp": ...}, 801), ({"timestamp": None}, 801), ({"timestamp": [1]}, 801), ({"timestamp": ""}, 801),
        ({"signmethod": ...}, 801), ({"signmethod": 7}, 801), ({"signmethod": "md5"}, 804),
        ({"authtype": 7}, 801), ({"authtype": "x"}, 801), ({"authtype": [1]}, 801), ({"authtype": {}}, 801),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_entry(more: dict[str, object], expected: int) -> None:
    assert bind(**more) == expected


@pytest.mark.parametrize(
    ("more", "by_certificate"),
    [
        ({}, False), ({"authtype": "certificate"}, True), ({"authtype": "cert"}, True), ({"authtype": ...}, None),
        ({"authtype": None}, None), ({"signmethod": "HmacSha1"}, False), ({"random": "0121213"}, False),
        ({"timestamp": "1589786839"}, False), ({"more": 1}, False),
    ],
)  # fmt: skip
def test_what_is_read(more: dict[str, object], by_certificate: bool | None) -> None:
    claim = bind(**more)
    assert isinstance(claim, BindClaim)
    assert (claim.identity, claim.by_certificate) == (Identity("tencent", "ASJ2KF9GX1", "xyz"), by_certificate)
    assert claim.random == str(more.get("random", 121213)), "as it was signed"


@pytest.mark.parametrize(
    ("seconds", "now", "fresh"),
    [(0, 0, True), (10, 1589786849, True), (10, 1589786850, False), (10, 1589786829, True), (10, 1589786828, False)],
)
def test_freshness(seconds: int, now: int, fresh: bool) -> None:
    claim = bind()
    assert isinstance(claim, BindClaim)
    assert claim.is_fresh(seconds, now) is fresh


def test_the_other_verbs_name_devices() -> None:
    for verb in ("unbind", "online", "offline"):
        assert [entry.asked for entry in read(verb, STATED, {}, 7)] == [
            Identity("tencent", "ASJ2KF9GX1", "xyz"), Result.PARAMETER, Result.PARAMETER,
        ]  # fmt: skip
    assert read_request(b'{"type":"describe_sub_devices","payload":7}').verb is Verb.DESCRIBE


def test_a_message_names_as_many_devices_as_a_gateway_may_have() -> None:
    """Without that a message of 16 KB could ask for an answer of 400 KB, one entry for each comma."""
    message = {"type": "online", "payload": {"devices": [1] * 1_500}}
    assert len(read_request(json.dumps(message).encode()).entries) == 1_500
    message["payload"] = {"devices": [1] * 1_501}
    with pytest.raises(Refusal, match="devices"):
        read_request(json.dumps(message).encode())


def test_every_outcome_has_its_code() -> None:
    assert RESULTS.keys() == set(Outcome)
    assert len(set(RESULTS.values())) == len(Outcome)


def test_answers() -> None:
    entry = Entry("P", "d\ud800", Result.DEVICE_NAME)
    assert gateway_wire.write_results("bind", [(entry, Result.DEVICE_NAME)]) == (
        b'{"type":"bind","payload":{"devices":[{"product_id":"P","device_name":"d\\ud800","result":802}]}}'
    )
    assert gateway_wire.write_sub_devices([Identity("tencent", "P", "d")]) == (
        b'{"type":"describe_sub_devices","payload":{"devices":[{"product_id":"P","device_name":"d"}]}}'
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.sampled_from(list(STATED)), inner),
    max_leaves=8,
)
entries = st.fixed_dictionaries({}, optional=dict.fromkeys(STATED, json_values)) | st.just(STATED) | json_values


def read_or_refuse(payload: bytes) -> gateway_wire.Request | str:
    """The request, or the type that it states."""
    try:
        return read_request(payload)
    except Refusal as refusal:
        if refusal.reason is not Reason.MALFORMED:
            raise
        return str(refusal.detail["type"])


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "replace")))
def test_any_payload_is_read_or_refused(payload: bytes) -> None:
    assert isinstance(read_or_refuse(payload), gateway_wire.Request | str)


@given(st.sampled_from(list(Verb)), st.lists(entries, max_size=3) | json_values)
def test_any_request_is_read_and_answered(verb: Verb, devices: object) -> None:
    payload = json.dumps({"type": verb, "payload": {"devices": devices}}).encode()
    request = read_or_refuse(payload)
    if isinstance(request, str):
        assert request == verb
        return
    gateway_wire.write_results(str(request.verb), [(entry, Result.SYSTEM) for entry in request.entries])
    for entry in request.entries:
        if isinstance(entry.asked, BindClaim):
            assert not entry.asked.proven_by("c2VjcmV0")
            assert not entry.asked.proven_by_certificate(b"der")
            assert entry.asked.is_fresh(0, 0)
