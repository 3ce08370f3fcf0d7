"""Who connects, what a session may do, and what it is told."""

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from provisioning.core import pki
from provisioning.model.identity import Identity
from provisioning.model.mqtt import Connect, Message
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.ioto import mqtt, wire
from provisioning.sections import Ioto as Settings

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
KEY = wire.product_key("T")
DEVICE = "CLAIM00001"
IDENTITY = Identity("ioto", KEY, DEVICE)


def certificate(*subject: tuple[x509.ObjectIdentifier, str]) -> bytes:
    key = pki.new_key()
    name = x509.Name([x509.NameAttribute(kind, value) for kind, value in subject])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


OU, CN = NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.COMMON_NAME
OURS = certificate((OU, KEY), (CN, DEVICE))


def connect(client_id: str = DEVICE, *, level: int = 4, username: str | None = None) -> Connect:
    """As agents send it: flags 0x00, no user name, no password."""
    return Connect(level=level, client_id=client_id, username=username, password=None, clean=False, keepalive=1_200)


# --- who connects ---


def test_the_certificate_says_who_comes() -> None:
    assert mqtt.read_certificate(OURS) == (KEY, DEVICE)
    assert mqtt.read_login(connect(), OURS) == IDENTITY


@pytest.mark.parametrize(
    "subject",
    [
        ((CN, DEVICE),),
        ((OU, KEY),),
        ((OU, "p"), (CN, DEVICE)),
        ((OU, KEY), (CN, "a/b")),
        ((OU, KEY), (OU, KEY), (CN, DEVICE)),
        ((OU, KEY), (CN, DEVICE), (CN, "OTHER")),
    ],
)
def test_certificates_of_others_name_nobody(subject: tuple[tuple[x509.ObjectIdentifier, str], ...]) -> None:
    der = certificate(*subject)
    assert mqtt.read_certificate(der) is None
    assert mqtt.read_login(connect(), der) is None


@given(st.binary() | st.integers(0, len(OURS) - 1).map(lambda at: OURS[:at] + b"\xff" + OURS[at + 1 :]))
def test_every_certificate_is_read_or_not_ours(der: bytes) -> None:
    assert mqtt.read_certificate(der) in {None, (KEY, DEVICE)} or len(der) == len(OURS)


def test_a_client_id_of_another_device() -> None:
    with pytest.raises(Refusal) as refused:
        mqtt.read_login(connect("CLAIM00002"), OURS)
    assert refused.value.reason is Reason.CERTIFICATE_REQUIRED
    assert mqtt.CONNACKS[refused.value.reason].v3 == 5


def test_other_versions_and_other_protocols() -> None:
    with pytest.raises(Refusal) as refused:
        mqtt.read_login(connect(level=5), OURS)
    assert mqtt.CONNACKS[refused.value.reason].v3 == 1
    assert mqtt.read_login(connect(username="dk&pk"), OURS) is None
    assert mqtt.read_login(connect(), b"") is None


def test_every_reason_has_a_code() -> None:
    assert set(mqtt.CONNACKS) == set(Reason)
    protocol = mqtt.Ioto(Settings())
    assert (protocol.reject(Reason.NOT_PROVEN).code, protocol.reject(Reason.CERTIFICATE_REQUIRED).code) == (4, 5)
    assert protocol.reject(Reason.UNAVAILABLE).code == 3, "whoever finds us without our database comes again"


# --- what a session may do ---


@pytest.mark.parametrize(
    ("topic_filter", "granted"),
    [
        (f"ioto/device/{DEVICE}/#", True), ("ioto/account/all/#", True), ("ioto/account/ACC1/#", True),
        (f"ioto/device/{DEVICE}/provision/release", True), ("ioto/device/CLAIM00002/#", False), ("#", False),
        ("ioto/account/ACC2/#", False), ("ioto/+/all/#", False), (f"ioto/device/{DEVICE}x/#", False),
        (f"ioto/service/{DEVICE}/x", False), (f"ioto/device/{DEVICE}", False),
    ],
)  # fmt: skip
def test_what_it_may_subscribe_to(topic_filter: str, *, granted: bool) -> None:
    rights = mqtt.rights(DEVICE, "ACC1")
    assert rights.may_subscribe(topic_filter) is granted
    if "#" not in topic_filter and "+" not in topic_filter:
        assert rights.may_receive(topic_filter) is granted


@pytest.mark.parametrize(
    ("topic", "granted"),
    [
        (f"ioto/service/{DEVICE}/db", True), (f"$aws/rules/IotoDevice/ioto/service/{DEVICE}/db", True),
        ("ioto/service/CLAIM00002/db", False), (f"ioto/device/{DEVICE}/provision/release", False),
        ("ioto/account/all/x", False), ("ioto/account/ACC1/x", False), ("$aws/rules/Other/x", False),
        (f"ioto/service/{DEVICE}", False),
    ],
)  # fmt: skip
def test_what_it_may_publish_to(topic: str, *, granted: bool) -> None:
    assert mqtt.rights(DEVICE, "ACC1").may_publish(topic) is granted


def test_without_a_known_account_there_is_no_topic_of_one() -> None:
    assert not mqtt.rights(DEVICE).may_subscribe("ioto/account//#")


def test_what_is_forbidden_or_too_large_ends_the_session() -> None:
    protocol = mqtt.Ioto(Settings())
    message = Message("x", b"")
    assert protocol.on_forbidden(IDENTITY, message).close
    assert protocol.on_oversize(IDENTITY, message).close
    assert not protocol.on_message(IDENTITY, message).close


# --- what it is told ---


def test_release_and_throttle() -> None:
    milliseconds = b"1893553445000"
    release = mqtt.write_release(DEVICE, NOW)
    assert (release.topic, release.payload) == (f"ioto/device/{DEVICE}/provision/release", milliseconds)
    throttle = mqtt.write_throttle(DEVICE, NOW)
    assert throttle.topic == f"ioto/device/{DEVICE}/mqtt/throttle"
    assert throttle.payload == b'{"timestamp":%s}' % milliseconds


def test_only_a_device_that_lost_its_place_is_told_to_erase() -> None:
    told = {reason for reason in Reason if mqtt.farewell(IDENTITY, reason, NOW)}
    assert told == {Reason.NOT_PROVEN, Reason.UNKNOWN}
