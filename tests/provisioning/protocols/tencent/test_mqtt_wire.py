from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.core.login import CertificateRole, Means
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason
from provisioning.protocols.tencent import mqtt_wire
from provisioning.protocols.tencent.mqtt_wire import CONNACKS, MqttClaim, Topics, User, mqtt_password
from tests.tencent import VECTORS

IDENTITY = Identity("tencent", "ASJ2KF9GX1", "xyz")
OWN = Topics("ASJ2KF9GX1/xyz")


@pytest.mark.parametrize("vector", VECTORS["mqtt_password"], ids=lambda vector: vector["name"])
def test_passwords(vector: dict[str, Any]) -> None:
    said = vector["inputs"]
    assert mqtt_password(said["username"], said["psk"], said["method"]) == vector["expected"]
    password = str(vector["expected"])
    for given_ in (password, password.upper(), password.swapcase()):
        claim = MqttClaim(IDENTITY, said["username"], given_.encode())
        assert claim.proven_by(said["psk"])
        assert not claim.proven_by(said["psk"].swapcase())
    other = password.replace("sha256", "sha1") if "sha256" in password else password.replace("sha1", "sha256")
    for wrong in (other, password[:-1], password + " ", password.partition(";")[0], "", ";", "0" + password):
        assert not MqttClaim(IDENTITY, said["username"], wrong.encode()).proven_by(said["psk"]), wrong


def test_the_user_names_of_the_vectors() -> None:
    for vector in VECTORS["mqtt_password"]:
        user = mqtt_wire.read_user(vector["inputs"]["username"])
        assert user is not None
        assert len(user.name) > mqtt_wire.PRODUCT_LENGTH
        assert mqtt_wire.read_identity(user.name) is not None


def test_a_claim_is_the_devices_and_a_certificate_stands_for_its_key() -> None:
    claim = MqttClaim(IDENTITY, "u", b"")
    assert (claim.means, claim.certificate_role) == (Means.DEVICE, CertificateRole.INSTEAD)
    assert "password" not in repr(claim)


@given(st.binary(), st.text(), st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_password_and_any_secret(password: bytes, secret: str, username: str) -> None:
    assert not MqttClaim(IDENTITY, username, password).proven_by(secret)


@pytest.mark.parametrize("password", [b"", b"0" * 64 + b";hmacsha256", b";hmacsha1", b";x" * 99, b"\xff"])
def test_a_proof_costs_one_digest_whatever_the_password(password: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that does not exist is judged by a secret that is nobody's: no part of it may be skipped."""
    computed: list[str] = []

    def compute(_username: str, psk: str, _method: str) -> str:
        computed.append(psk)
        return "x"

    monkeypatch.setattr(mqtt_wire, "mqtt_password", compute)
    assert not MqttClaim(IDENTITY, "u", password).proven_by("secret")
    assert computed == ["secret"]


@given(st.text())
def test_any_user_name(text: str) -> None:
    user = mqtt_wire.read_user(text)
    assert user is None or text.startswith(user.name)
    identity = mqtt_wire.read_identity(text)
    assert identity is None or f"{identity.product}{identity.device}" == text


@pytest.mark.parametrize(("expiry", "now", "expired"), [
    ("", 1, True), ("1", 2, True), ("2", 2, False), ("3", 2, False), ("9" * 12, 10**12, True),
    ("1" + "0" * 12, 10**13, False), ("9" * 99, 10**9, False),
])  # fmt: skip
def test_expiry(expiry: str, now: int, expired: bool) -> None:
    assert User("n", expiry).is_expired(now) is expired


def test_every_reason_has_its_codes() -> None:
    assert CONNACKS.keys() == set(Reason)
    assert {codes.v3 for codes in CONNACKS.values()} == {1, 2, 3, 4, 5}
    assert all(codes.v5 >= 0x80 for codes in CONNACKS.values())
    known = {CONNACKS[reason] for reason in (Reason.NOT_PROVEN, Reason.UNKNOWN, Reason.CERTIFICATE_REQUIRED)}
    assert len(known) == 1, "the answer would tell whether a device exists"


# --- topics ---

RIGHTS = {
    "{}/control": (False, True), "{}/event": (True, False), "{}/data": (True, True),
    "$shadow/operation/{}": (True, False), "$shadow/operation/result/{}": (False, True),
    "$ota/report/{}": (True, False), "$ota/update/{}": (False, True),
    "$gateway/operation/{}": (True, False), "$gateway/operation/result/{}": (False, True),
}  # fmt: skip


@pytest.mark.parametrize("topic", RIGHTS)
def test_rights(topic: str) -> None:
    """Reference, section 7."""
    publish, subscribe = RIGHTS[topic]
    own = topic.format("ASJ2KF9GX1/xyz")
    assert (OWN.may_publish(own), OWN.may_subscribe(own), OWN.may_receive(own)) == (publish, subscribe, subscribe)
    sub = topic.format("ASJ2KF9GX1/sub")
    assert not any(may(sub) for may in (OWN.may_publish, OWN.may_subscribe, OWN.may_receive))
    grown = OWN.with_others(["ASJ2KF9GX1/sub"])
    mine = not topic.startswith("$gateway")
    assert (grown.may_publish(sub), grown.may_subscribe(sub)) == (publish and mine, subscribe and mine)
    assert (grown.may_publish(own), grown.may_subscribe(own)) == (publish, subscribe)
    assert grown.without_others(["ASJ2KF9GX1/sub", "x"]) == OWN
    for other in (own[1:], own + "/", own + "x", "/" + own, own.upper().replace("CONTROL", "x"), own + "/#"):
        assert not any(may(other) for may in (OWN.may_publish, OWN.may_subscribe)), other


@given(st.text(), st.lists(st.sampled_from(["/", "$", "xyz", "ASJ2KF9GX1", "+", "#", "event", "$ota", "report"])))
def test_any_topic_is_judged(text: str, parts: list[str]) -> None:
    for topic in (text, "".join(parts), "/".join(parts)):
        allowed = {form.format("ASJ2KF9GX1/xyz") for form in RIGHTS}
        assert not (OWN.may_publish(topic) or OWN.may_subscribe(topic)) or topic in allowed


def test_the_topic_of_a_gateways_answers() -> None:
    assert mqtt_wire.gateway_reply(IDENTITY) == "$gateway/operation/result/ASJ2KF9GX1/xyz"
    assert OWN.may_subscribe(mqtt_wire.gateway_reply(IDENTITY))
