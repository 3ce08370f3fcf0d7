"""MQTT sessions of agents, through a service and over TLS: reference, sections 7 and 8."""

import json
import re
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker import pace, packets
from broker.packets import Connack, Publish
from provisioning import upkeep
from provisioning.core import ca, certify, claims, inventory, pki, registry
from provisioning.model.certificate import Status
from provisioning.model.mqtt import Connect
from provisioning.model.registry import Device
from provisioning.protocols.ioto import mqtt, wire
from provisioning.store import certificates
from tests import peers
from tests.conftest import Serve, until
from tests.devices import raw
from tests.openssl import made
from tests.provisioning.protocols.conftest import Lines
from tests.provisioning.protocols.ioto.conftest import CONNECT, DEVICE, TOKEN, USER_TOKEN, Fleet, connect

pytestmark = pytest.mark.server

OTHER = "CLAIM00002"
OWN = f"ioto/device/{DEVICE}/"
SERVICE = f"ioto/service/{DEVICE}/"
RELEASE = f"{OWN}provision/release"
NEW, RESUMED = (Connack(session_present=present, code=0) for present in (False, True))


def test_the_connect_of_an_agent() -> None:
    assert packets.write_connect(connect()) == CONNECT


# --- CONNECT ---


async def test_the_certificate_alone_lets_an_agent_in(fleet: Fleet, lines: Lines) -> None:
    await fleet.issue()
    async with fleet.client() as client:
        client.send(CONNECT)
        assert await client.read() == NEW
        assert await client.ping() == [], "nothing comes unasked"
        (connection,) = fleet.running.mqtts.connections
        assert connection._keepalive == 1_200 * 1.5  # type: ignore[union-attr]
    assert str((await fleet.device()).state) == "activated"
    (line,) = (line for line in lines if line["event"] == "mqtt.login")
    assert (line["protocol"], line["product"], line["device"]) == ("ioto", wire.product_key(TOKEN), DEVICE)
    assert re.fullmatch("[0-9a-f]{8,}", line["certificate"])
    assert TOKEN not in str(lines)


async def test_a_session_is_resumed(fleet: Fleet) -> None:
    """Clean session 0: subscriptions and messages wait for the agent."""
    await fleet.issue()
    async with fleet.session() as client:
        assert await client.subscribe((f"{OWN}#", 1)) == (1,)
    await fleet.ended()
    fleet.route(f"{OWN}db", b"1")
    async with fleet.client() as client:
        assert await client.login(connect()) == RESUMED
        message = (await client.read_publish()).message
        assert (message.topic, message.payload, message.qos) == (f"{OWN}db", b"1", 1)
    async with fleet.client() as client:
        assert await client.login(connect(clean=True)) == NEW


async def test_a_newer_connection_takes_over(fleet: Fleet) -> None:
    await fleet.issue()
    async with fleet.session() as older, fleet.session():
        assert await older.is_closed()


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (connect(OTHER), 5), (connect("nobody"), 5), (connect(DEVICE.lower()), 5), (connect("", clean=True), 5),
        (connect(level=3), 1), (connect(level=5), 0x84), (connect(username=DEVICE), 4),
        (connect(username=DEVICE, password=TOKEN.encode()), 4), (connect(), 0),
    ],
)  # fmt: skip
async def test_what_does_not_go_with_the_certificate(fleet: Fleet, wanted: Connect, code: int) -> None:
    await fleet.issue()
    await fleet.issue(OTHER)
    assert await fleet.code(wanted) == code


async def test_without_a_certificate(fleet: Fleet) -> None:
    """One port refuses the handshake, another CONNECT; without TLS nobody is Ioto's."""
    await fleet.issue()
    with suppress(ssl.SSLError, ConnectionError):
        async with fleet.client(None) as client:
            client.send(CONNECT)
            assert await client.read() is None, "served"
    more = fleet.running.more_ports["mqtts_more"][0]
    assert await fleet.code(file=None, port=more) == 4
    async with raw(fleet.running.mqtt.port) as client:
        assert (await client.login(connect())).code == 4


async def test_certificates_of_others(fleet: Fleet) -> None:
    """Of another authority; ours, with the right names and of another device; ours, and nobody's."""
    await fleet.issue()
    await fleet.issue(OTHER)
    stranger = made(DEVICE, ca=False)
    peers.write(fleet.directory / "stranger", stranger)
    with suppress(ssl.SSLError, ConnectionError):
        async with fleet.client("stranger") as client:
            client.send(CONNECT)
            assert await client.read() is None, "served"
    assert await fleet.code(connect(DEVICE), OTHER) == 5
    _, _, chain = (fleet.directory / DEVICE).read_text().partition("-----END PRIVATE KEY-----\n")
    subject = pki.read_certificates(chain)[0].subject
    for owner, code in ((await fleet.device(OTHER), 5), (None, 4)):
        async with fleet.running.database.begin() as tx:
            authority = await ca.default(tx)
            issued = await certify.issue_with_key(
                tx, authority, pki.new_key(), subject, now=datetime.now(UTC), days=1, device=owner
            )
        (fleet.directory / "other").write_text(issued.key + certify.bundle(authority, issued.certificate))
        assert await fleet.code(file="other") == code


# --- revoked, released, deleted ---


async def revoke_all(tx: Any, device: Device) -> None:
    await inventory.revoke_of_device(tx, device.id, now=datetime.now(UTC))


async def test_a_revoked_certificate_ends_the_session_without_a_release(fleet: Fleet) -> None:
    token = await fleet.issue()
    async with fleet.session() as client:
        await fleet.change(revoke_all)
        assert await client.read() is None, "an agent that is told to erase would lose what it could keep"
    assert await fleet.code() == 5
    await fleet.renew(token)
    assert await fleet.code() == 0


async def test_a_newer_certificate_replaces_the_older_once_it_is_shown(
    serve: Serve, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "SEEN_EVERY", 0.01)  # not the care of every hour
    fleet.running = fleet.agent.running = await serve()
    token = await fleet.issue()
    await fleet.renew(token, file="newer")
    assert await fleet.code() == 0, "the newer one has not been shown"
    assert await fleet.code(file="newer") == 0
    await fleet.becomes(5)
    assert await fleet.code(file="newer") == 0


async def test_a_certificate_that_has_a_successor_goes_after_a_day(
    serve: Serve, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CARE_EVERY", "SEEN_EVERY"):
        monkeypatch.setattr(upkeep, name, 0.01)
    monkeypatch.setattr(claims, "OVERLAP", timedelta(0))
    fleet.running = fleet.agent.running = await serve()
    token = await fleet.issue()
    assert await fleet.code() == 0
    await fleet.renew(token, file="newer")
    await fleet.becomes(5)


@pytest.mark.parametrize("clean", [False, True])
async def test_a_released_device_is_told_and_its_session_is_gone(fleet: Fleet, clean: bool) -> None:
    token = await fleet.issue()
    async with fleet.client() as client:
        assert (await client.login(connect(clean=clean))).code == 0
        assert await client.subscribe((f"{OWN}#", 1)) == (1,)
        before = datetime.now(UTC).timestamp() * 1_000
        await fleet.release()
        told = (await client.read_publish()).message
        assert (told.topic, told.qos, told.retain) == (RELEASE, 0, False)
        assert re.fullmatch(rb"[0-9]{13}", told.payload), "Unix milliseconds, as text"
        assert 0 <= int(told.payload) - int(before) < 5_000
        assert await client.read() is None
    await fleet.ended()
    assert fleet.stored == 0
    assert await fleet.code() == 5
    (await fleet.agent.checkin(token)).refused(403, "Authentication failed")
    await fleet.issue(account="ACC2")
    async with fleet.client() as client:
        assert await client.login(connect()) == NEW
        assert await client.subscribe(("ioto/account/ACC2/#", 1), ("ioto/account/ACC1/#", 1)) == (1, 0x80)


async def test_a_device_that_is_away_is_forgotten_too(fleet: Fleet) -> None:
    await fleet.issue()
    async with fleet.session() as client:
        assert await client.subscribe((f"{OWN}#", 1)) == (1,)
    await fleet.ended()
    assert fleet.stored == 1
    await fleet.release()
    await until(lambda: not fleet.stored, "its session to be gone")
    fleet.route(f"{OWN}db")
    assert fleet.running.broker.queued == 0


async def test_what_a_released_device_still_sends_goes_nowhere(fleet: Fleet) -> None:
    await fleet.issue()
    await fleet.issue(OTHER, account="ACC1")
    async with fleet.session() as client:
        await fleet.release()
        await client.read_publish()
        client.publish(f"{SERVICE}x", b"1", qos=1)
        client.send(packets.write_subscribe(9, [(f"{OWN}#", 1)], 4))
        assert await client.read() is None, "neither PUBACK nor SUBACK"
    await fleet.ended()
    assert fleet.stored == 0


async def test_a_deleted_device_is_told_and_unknown_afterwards(fleet: Fleet) -> None:
    token = await fleet.issue()
    async with fleet.session() as client:
        await fleet.change(registry.delete_device)
        assert (await client.read_publish()).message.topic == RELEASE
        assert await client.read() is None
    assert await fleet.code() == 4
    (await fleet.agent.checkin(token)).refused(400, "Cannot find device")
    await fleet.issue()
    assert await fleet.code() == 0, "the same id, as another device"


async def test_a_device_that_is_released_and_then_deleted(fleet: Fleet) -> None:
    """Its certificate is refused at first for one reason, and then for another."""
    await fleet.issue()
    await fleet.release()
    await fleet.becomes(5)
    await fleet.change(registry.delete_device)
    await fleet.becomes(4)


async def test_a_blocked_device_keeps_its_certificates(fleet: Fleet) -> None:
    await fleet.issue()
    async with fleet.session() as client:
        await fleet.change(registry.disable)
        assert await client.read() is None, "without a release"
    assert await fleet.code() == 5
    await fleet.change(registry.enable)
    await fleet.becomes(0)
    async with fleet.running.database.read() as tx:
        (held,) = await certificates.of_device(tx, (await fleet.device()).id)
    assert held.status is Status.VALID


async def test_a_new_certificate_does_not_wait_for_what_the_old_one_was_refused(fleet: Fleet, serve: Serve) -> None:
    """There is no secret to guess: refusals of a certificate do not block the device."""
    fleet.running = fleet.agent.running = await serve(block={"refusals": 2})
    await fleet.issue()
    await fleet.release()
    await fleet.becomes(5)
    for _ in range(3):
        assert await fleet.code() == 5
    await fleet.issue()
    assert await fleet.code() == 0


async def test_release_by_an_administrator_over_http(fleet: Fleet) -> None:
    await fleet.issue()
    async with fleet.session() as client:
        assert (await fleet.agent.post("/device/release", {"id": DEVICE}, f"bearer {USER_TOKEN}")).status == 200
        assert (await client.read_publish()).message.topic == RELEASE
        assert await client.read() is None


# --- topics ---


async def test_what_an_agent_may_subscribe_to(fleet: Fleet) -> None:
    await fleet.issue()
    granted = (f"{OWN}#", "ioto/account/all/#", "ioto/account/ACC1/#", RELEASE, f"{OWN}+/x")
    refused = (
        "#", "+/#", "ioto/#", "ioto/device/#", f"ioto/device/{OTHER}/#", "ioto/device/+/provision/release",
        "ioto/account/#", "ioto/account/ACC2/#", "ioto/account/+/x", f"{SERVICE}#", "$SYS/#",
        "$aws/rules/IotoDevice/#", f"ioto/device/{DEVICE}x/#", "$share/g/#",
    )  # fmt: skip
    async with fleet.session() as client:
        for filters, code in ((granted, 1), (refused, 0x80)):
            codes = await client.subscribe(*((each, 1) for each in filters))
            assert dict(zip(filters, codes, strict=True)) == dict.fromkeys(filters, code)
        for topic in ("ioto/account/all/x", "ioto/account/ACC1/x", f"{OWN}x"):
            fleet.route(topic)
            assert (await client.read_publish()).message.topic == topic
        fleet.route(f"ioto/device/{OTHER}/x")
        fleet.route("ioto/account/ACC2/x")
        assert await client.ping() == []


async def test_what_an_agent_may_publish_to(fleet: Fleet) -> None:
    await fleet.issue()
    async with fleet.session() as client:
        for number, topic in enumerate((f"{SERVICE}db", f"$aws/rules/IotoDevice/{SERVICE}db", f"{SERVICE}a/b/c"), 1):
            client.publish(topic, b"{}", qos=1, packet_id=number)
            assert await client.read() == packets.Puback(number)
        client.publish(f"{SERVICE}db", b"{}")
        assert await client.ping() == []


@pytest.mark.parametrize(
    "topic",
    [
        f"ioto/service/{OTHER}/db", f"$aws/rules/IotoDevice/ioto/service/{OTHER}/db", f"{OWN}db", RELEASE,
        f"ioto/device/{OTHER}/provision/release", "ioto/account/all/x", "ioto/account/ACC1/x", f"ioto/service/{DEVICE}",
        "$aws/rules/Other/x", "x",
    ],
)  # fmt: skip
async def test_a_message_elsewhere_ends_the_session(fleet: Fleet, topic: str) -> None:
    await fleet.issue()
    async with fleet.session() as client:
        client.publish(topic, b"1", qos=1)
        assert await client.read() is None, "no PUBACK"


async def test_how_large_a_message_may_be(fleet: Fleet) -> None:
    await fleet.issue()
    async with fleet.session() as client:
        client.publish(f"{SERVICE}x", bytes(mqtt.LARGEST_PAYLOAD), qos=1)
        assert await client.read() == packets.Puback(7)
        client.publish(f"{SERVICE}x", bytes(mqtt.LARGEST_PAYLOAD + 1), qos=1)
        assert await client.read() is None


# --- throttle ---


async def test_who_sends_too_fast_is_told_and_loses_nothing(
    serve: Serve, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "WINDOW", 0.1)
    fleet.running = fleet.agent.running = await serve(ioto={"messages_up": 3})
    await fleet.issue()
    async with fleet.session() as client:
        for number in range(1, 8):
            client.publish(f"{SERVICE}x", b"1", qos=1, packet_id=number)
        got = await client.ping()
    told = [packet.message for packet in got if isinstance(packet, Publish)]
    assert [packet for packet in got if isinstance(packet, packets.Puback)] == [packets.Puback(n) for n in range(1, 8)]
    assert len(told) == 2, "once for each window that was full"
    for message in told:
        assert (message.topic, message.qos) == (f"{OWN}mqtt/throttle", 0)
        assert abs(json.loads(message.payload)["timestamp"] / 1_000 - datetime.now(UTC).timestamp()) < 10
