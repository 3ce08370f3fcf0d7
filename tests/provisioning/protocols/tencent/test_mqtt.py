"""Tencent over MQTT: claims without a service; CONNACK map, topics, limits and TLS through one."""

import asyncio
import ssl
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import pace, packets
from broker.packets import Puback, Publish
from provisioning.app import Running
from provisioning.core import ca, certify, inventory, pki, registry
from provisioning.model.admission import NOTHING
from provisioning.model.certificate import Certificate
from provisioning.model.identity import Identity
from provisioning.model.mqtt import Connect, Message
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.tencent.mqtt import Tencent
from provisioning.sections import Tencent as Settings
from provisioning.store import devices
from tests.conftest import Serve, load_rows, until
from tests.devices import Raw, raw
from tests.provisioning.protocols.conftest import Lines
from tests.tencent import FUTURE, KEYS, LEAVES, ROWS, code, connect, device, device_row, psk, quiet

NOW = 1_700_000_000
IDENTITY = Identity("tencent", KEYS, "d1")
FREE = {"connect_interval": 0.0}


def tencent(**settings: Any) -> Tencent:
    return Tencent(Settings(**settings), clock=lambda: NOW)


# --- from CONNECT to claim ---


@pytest.mark.parametrize(
    "username",
    [
        None, "", "dk1&pk1", "KEYPRODUCTd1", "KEYPRODUCTd1;1;c", "KEYPRODUCTd1;1;c;2;3", "KEYPRODUCTd1;x;c;2",
        "KEYPRODUCTd1;1;c;", "KEYPRODUCTd1;1;c;-2", "KEYPRODUCTd1;1;c;2.5", "KEYPRODUCT;1;c;2", "short;1;c;2",
        "KEYPRODUCTd/1;1;c;2", "KEYPRODUCT" + "d" * 49 + ";1;c;2", "KEY-RODUCTd1;1;c;2", "KEYPRODUCTd1;1;c;٣",
        "KEYPRODUCTd1;1;c;2\n",
    ],
)  # fmt: skip
def test_not_mine(username: str | None) -> None:
    assert tencent().read_connect(replace(connect(), username=username)) is None


@pytest.mark.parametrize("level", [3, 4, 5])
@pytest.mark.parametrize("expiry", [NOW, NOW + 1, FUTURE, NOW * 1_000, 2**31 - 1, 2**63 - 1, "9" * 5_000, f"000{NOW}"])
def test_user_names(level: int, expiry: object) -> None:
    """Seconds, milliseconds even of the past, LONG_MAX, and what is larger than any integer (reference, section 7)."""
    claim = tencent().read_connect(connect(level=level, expiry=expiry))
    assert claim is not None
    assert claim.identity == IDENTITY
    assert claim.proven_by(psk("d1"))
    assert not claim.proven_by(psk("d2"))


@pytest.mark.parametrize("expiry", [0, 1, NOW - 1, "0000", f"0000000000000{NOW - 1}"])
def test_an_expired_user_name(expiry: object) -> None:
    with pytest.raises(Refusal) as caught:
        tencent().read_connect(connect(expiry=expiry))
    assert caught.value.reason is Reason.STALE


def test_the_product_has_ten_characters() -> None:
    claim = tencent().read_connect(connect("KEYPRODUCT_a:b-c" + "x" * 32))
    assert claim is not None
    assert (claim.identity.product, claim.identity.device) == (KEYS, "KEYPRODUCT_a:b-c" + "x" * 32)


@pytest.mark.parametrize(("keepalive", "fits"), [(0, True), (1, True), (900, True), (901, False), (65_535, False)])
def test_keepalive(keepalive: int, fits: bool) -> None:
    wanted = connect(keepalive=keepalive)
    if fits:
        assert tencent().read_connect(wanted) is not None
        return
    with pytest.raises(Refusal) as caught:
        tencent().read_connect(wanted)
    assert tencent().reject(caught.value.reason).code == 5


@given(
    st.one_of(st.none(), st.text(), st.from_regex(r"[A-Z]{10}d;[0-9]*;[^;]*;[0-9]*", fullmatch=True)),
    st.text(),
    st.one_of(st.none(), st.binary()),
    st.text(),
)
def test_any_connect_is_read_or_refused(username: str | None, client_id: str, password: bytes | None, key: str) -> None:
    own = (username or "").partition(";")[0]
    for name in (client_id, own):
        wanted = Connect(4, name, username, password, True, 60)
        try:
            claim = tencent().read_connect(wanted)
        except Refusal as refusal:
            if refusal.reason not in {Reason.MALFORMED, Reason.STALE}:
                raise
        else:
            assert claim is None or claim.proven_by(key) in {True, False}


@given(st.binary(), st.sampled_from(["KEYPRODUCT/d1/event", "$ota/report/KEYPRODUCT/d1", "$gateway/operation/x/y"]))
def test_without_gateways_no_message_is_answered(payload: bytes, topic: str) -> None:
    assert tencent().on_message(IDENTITY, Message(topic, payload)) is NOTHING


# --- login ---


@pytest.fixture
async def service(serve: Serve) -> Running:
    running = await serve(tencent=FREE, block={"refusals": 0}, mqtts={"more_ports": [0]})
    await load_rows(running, *ROWS)
    return running


WRONG = psk("wrong")


CONNACKS: list[tuple[Connect, int]] = [
    (connect(), 0),
    (connect(method="hmacsha1"), 0),
    (connect(level=3), 0),
    (connect(level=5), 0),
    (connect(connid=""), 0),
    (replace(connect(), password=(connect().password or b"").upper()), 0),
    (connect(client_id="other"), 2),
    (connect(client_id="KEYPRODUCTd2"), 2),
    (connect(client_id="KEYPRODUCTD1"), 2),
    (connect("nobody"), 4),
    (connect(product="NOPRODUCT1"), 4),
    (connect(secret=WRONG), 4),
    (connect(expiry=NOW), 4),
    (replace(connect(), password=None), 4),
    (replace(connect(), password=b""), 4),
    (replace(connect(), password=b";hmacsha256"), 4),
    (replace(connect(), password=(connect().password or b"")[:64]), 4),
    (replace(connect(), password=(connect().password or b"").replace(b"sha256", b"md5")), 4),
    (replace(connect(), password=b"\xff" * 74), 4),
    (connect("c1", product=LEAVES), 4),
    (connect("nobody", product=LEAVES), 4),
    (connect(keepalive=901), 5),
    (connect("off"), 5),
    (connect("off", secret=WRONG), 4),
]


async def test_every_connack(service: Running) -> None:
    await load_rows(service, device_row("off", disabled=True))
    for wanted, expected in CONNACKS:
        async with raw(service.mqtt.port) as client:
            answer = await client.login(wanted)
            assert answer.code == expected, wanted
            if answer.code:
                assert await client.is_closed()
            else:
                await quiet(client)


async def test_mqtt_5_has_codes_of_its_own(service: Running) -> None:
    for wanted, expected in (
        (connect(level=5, client_id="x"), 0x85),
        (connect(level=5, secret=WRONG), 0x86),
        (connect(level=5, keepalive=901), 0x87),
    ):
        assert await code(service, wanted) == expected


async def test_the_first_connect_activates(service: Running) -> None:
    async def state() -> str:
        async with service.database.read() as tx:
            return str((await registry.device(tx, "tencent", KEYS, "d1")).state)

    assert await state() == "allocated"
    assert await code(service, connect(secret=WRONG)) == 4
    assert await state() == "allocated"
    assert await code(service, connect()) == 0
    assert await state() == "activated"


@pytest.mark.parametrize("version", [aiomqtt.ProtocolVersion.V31, aiomqtt.ProtocolVersion.V311])
async def test_an_ordinary_library(service: Running, version: aiomqtt.ProtocolVersion) -> None:
    """MQTT 3.1 allows 23 characters of client id; this one has more."""
    name = "d" * 40
    await load_rows(service, device_row(name))
    wanted = connect(name)
    async with aiomqtt.Client(
        "127.0.0.1", service.mqtt.port, identifier=wanted.client_id, username=wanted.username,
        password=(wanted.password or b"").decode(), protocol=version,
    ) as client:  # fmt: skip
        await client.subscribe(f"{KEYS}/{name}/data", qos=1)
        await client.publish(f"{KEYS}/{name}/data", b"1", qos=1)
        message = await asyncio.wait_for(anext(client.messages), 5)
        assert message.payload == b"1"


async def test_what_is_nobodys_is_refused(service: Running) -> None:
    assert await code(service, replace(connect(), username="KEYPRODUCTd1;1;c")) == 4
    assert await code(service, replace(connect(level=3), username="KEYPRODUCTd1;1;c")) == 1


async def test_the_newest_takes_over(service: Running) -> None:
    async with device(service) as older, device(service, connid="other") as newer:
        assert await older.is_closed()
        await quiet(newer)


async def test_a_device_may_not_come_again_at_once(serve: Serve) -> None:
    """Only what was accepted counts: an impostor delays nobody."""
    running = await serve(tencent={"connect_interval": 60.0})
    await load_rows(running, *ROWS)
    assert await code(running, connect(secret=WRONG)) == 4
    async with device(running) as client:
        assert await code(running, connect(connid="again")) == 5
        await quiet(client)
        assert await code(running, connect("d2")) == 0


async def test_changes_end_the_session(service: Running) -> None:
    async with device(service) as client:
        async with service.database.begin() as tx:
            await devices.kick(tx, await registry.device(tx, "tencent", KEYS, "d1"))
        assert await client.is_closed()
    async with device(service) as client:
        async with service.database.begin() as tx:
            await registry.disable(tx, await registry.device(tx, "tencent", KEYS, "d1"))
        assert await client.is_closed()
    await until(lambda: len(service.sessions) == 0, "the session to end")
    assert await code(service, connect()) == 5


async def test_further_ports(serve: Serve) -> None:
    running = await serve(tencent=FREE, mqtt={"more_ports": [0, 0]})
    await load_rows(running, *ROWS)
    assert len(set(running.mqtt.ports)) == 3
    for port in running.mqtt.ports:
        async with device(running, port=port) as client:
            await quiet(client)


# --- topics ---

OWN = f"{KEYS}/d1"
PUBLISH = (
    f"{OWN}/event", f"{OWN}/data", f"$shadow/operation/{OWN}", f"$ota/report/{OWN}", f"$gateway/operation/{OWN}",
)  # fmt: skip
SUBSCRIBE = (
    f"{OWN}/control", f"{OWN}/data", f"$shadow/operation/result/{OWN}", f"$ota/update/{OWN}",
    f"$gateway/operation/result/{OWN}",
)  # fmt: skip
OTHERS = (
    f"{KEYS}/d2/event", f"{KEYS}/d2/data", f"{OWN}/other", OWN, f"{OWN}/", f"{OWN}/event/", f"/{OWN}/event", "event",
    f"$shadow/operation/{KEYS}/d2", f"$sys/{OWN}", f"$gateway/operation/{KEYS}/d2", f"x/{OWN}/event",
    "x" * 256, "/".join("abcdefghijk"),
)  # fmt: skip
WILD = ("#", "+/+/control", f"{OWN}/#", f"{OWN}/+", f"$shadow/operation/result/{KEYS}/+", "$gateway/#")


async def test_topic_rights(service: Running) -> None:
    async with device(service) as client:
        for topic in PUBLISH:
            client.publish(topic, b"1", qos=1)
            assert Puback(7) in [await client.read(), *await client.ping()], topic
        for number, topic in enumerate((*SUBSCRIBE, *OTHERS, *WILD, *(set(PUBLISH) - set(SUBSCRIBE))), 1):
            expected = 1 if topic in SUBSCRIBE else 0x80
            assert await client.subscribe((topic, 1), packet_id=number) == (expected,), topic


async def test_a_forbidden_message_ends_the_session_unacknowledged(service: Running) -> None:
    for topic in (*OTHERS, *(set(SUBSCRIBE) - set(PUBLISH))):
        async with device(service) as client:
            client.publish(topic, b"1", qos=1)
            assert await client.read() is None, topic


async def test_a_message_that_is_too_large_ends_the_session(service: Running) -> None:
    async with device(service) as client:
        assert await client.subscribe((f"{OWN}/data", 0)) == (0,)
        client.publish(f"{OWN}/data", bytes(16_384), qos=1)
        assert {type(await client.read()), type(await client.read())} == {Publish, Puback}
        client.publish(f"{OWN}/data", bytes(16_385), qos=1)
        assert await client.read() is None


async def test_qos_2(service: Running) -> None:
    async with device(service) as client:
        assert await client.subscribe((f"{OWN}/control", 2)) == (1,)
        client.send(b"\x34\x07\x00\x01a\x00\x07hi")
        assert await client.read() is None


async def test_one_filter_for_each_subscribe(service: Running) -> None:
    async with device(service) as client:
        assert await client.subscribe((f"{OWN}/control", 1), (f"{OWN}/data", 1)) == (1, 0x80)
        assert await client.subscribe(("no", 1), (f"{OWN}/data", 1)) == (0x80, 0x80)
        assert await client.subscribe((f"{OWN}/data", 0)) == (0,)


async def test_wills_and_retained_messages_are_ignored(service: Running) -> None:
    will = Message(f"{OWN}/data", b"gone", qos=1, retain=True)
    async with device(service, clean=False) as client:
        assert await client.subscribe((f"{OWN}/data", 1)) == (1,)
        client.publish(f"{OWN}/data", b"kept?", retain=True)
        assert (await client.read_publish()).message == Message(f"{OWN}/data", b"kept?")
    async with device(service, clean=False, will=will) as client:
        await quiet(client)
        client.abort()
    await until(lambda: not service.mqtt.connections, "the connection to be gone")
    async with device(service, clean=False) as client:
        await quiet(client)
        assert await client.subscribe((f"{OWN}/data", 1)) == (1,)
        await quiet(client)
    assert not service.broker.retained


async def test_what_is_stored_for_a_device_that_is_away(serve: Serve) -> None:
    running = await serve(tencent=FREE | {"max_stored": 3, "messages_down": 0})
    await load_rows(running, *ROWS)
    async with device(running, clean=False) as client:
        assert await client.subscribe((f"{OWN}/control", 1)) == (1,)
    await until(lambda: not running.mqtt.connections, "the device to be away")
    for number in range(5):
        running.broker.route(Message(f"{OWN}/control", b"%d" % number, qos=1))
    assert running.broker.queued == 3
    async with device(running, clean=False) as client:
        assert [(await client.read_publish()).message.payload for _ in range(3)] == [b"0", b"1", b"2"]


# --- the pace ---


async def test_what_comes_too_fast_is_read_later(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "WINDOW", 0.05)
    running = await serve(tencent=FREE | {"messages_up": 4, "messages_down": 0})
    await load_rows(running, *ROWS)
    async with device(running) as client:
        assert await client.subscribe((f"{OWN}/data", 1)) == (1,)
        began = asyncio.get_running_loop().time()
        for number in range(30):
            client.publish(f"{OWN}/data", b"%d" % number)
        client.send(packets.PINGREQ)
        got = [(await client.read_publish()).message.payload for _ in range(30)]
        assert got == [b"%d" % number for number in range(30)], "nothing is lost, and nothing changes places"
        assert asyncio.get_running_loop().time() - began >= 7 * 0.05
        assert isinstance(await client.read(), packets.Pingresp)


async def test_what_goes_too_fast_waits(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "WINDOW", 0.2)
    running = await serve(tencent=FREE | {"messages_up": 0, "messages_down": 5})
    await load_rows(running, *ROWS)
    async with device(running) as client:
        assert await client.subscribe((f"{OWN}/control", 1)) == (1,)
        for number in range(12):
            running.broker.route(Message(f"{OWN}/control", b"%d" % number, qos=number % 2))
        assert running.broker.queued >= 12 - 5
        got = [await client.read_publish() for _ in range(12)]
        for qos in (0, 1):
            assert [int(each.message.payload) for each in got if each.message.qos == qos] == list(range(qos, 12, 2))
        assert running.broker.dropped == 0


# --- the log ---


async def test_what_is_logged(service: Running, lines: Lines) -> None:
    wanted = connect()
    assert wanted.password is not None
    assert [await code(service, each) for each in (wanted, replace(wanted, client_id="x"))] == [0, 2]
    accepted, refused = (line for line in lines if line["event"] == "mqtt.login")
    assert (accepted["protocol"], accepted["product"], accepted["device"]) == ("tencent", KEYS, "d1")
    assert (refused["protocol"], refused["reason"], refused["field"]) == ("tencent", "malformed", "clientId")
    assert wanted.password[:64].decode() not in str(lines)
    assert psk("d1") not in str(lines)


# --- certificates ---


class Fleet:
    """A service, and certificates of its authority as files."""

    def __init__(self, service: Running, directory: Path) -> None:
        self.service = service
        self.directory = directory

    async def issue(self, name: str, product: str) -> Certificate:
        async with self.service.database.begin() as tx:
            owner = await registry.device(tx, "tencent", product, name)
            authority = await ca.default(tx)
            made = await certify.issue_with_key(
                tx, authority, pki.new_key(), pki.make_subject(product + name), now=datetime.now(UTC), days=30,
                device=owner,
            )  # fmt: skip
        (self.directory / name).write_text(made.key + certify.bundle(authority, made.certificate))
        return made.certificate

    async def code(self, wanted: Connect, certificate: str | None) -> int:
        """The CONNACK code of a login over TLS."""
        async with self.service.database.read() as tx:
            anchor = (await ca.default(tx)).certificate
        context = ssl.create_default_context(cadata=pki.write_pem(anchor))
        if certificate:
            context.load_cert_chain(self.directory / certificate)
        port = self.service.more_ports["mqtts_more"][0]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        try:
            return (await Raw(reader, writer).login(wanted)).code
        finally:
            writer.transport.abort()


@pytest.fixture
def fleet(service: Running, tmp_path: Path) -> Fleet:
    return Fleet(service, tmp_path)


async def test_certificates(fleet: Fleet, lines: Lines) -> None:
    await load_rows(fleet.service, device_row("c2", LEAVES))
    own = await fleet.issue("c1", LEAVES)
    await fleet.issue("d1", KEYS)
    leaf = connect("c1", product=LEAVES)
    for wanted, certificate, expected in (
        (leaf, "c1", 0),
        (replace(leaf, password=None), "c1", 0),
        (connect("c1", product=LEAVES, secret=WRONG), "c1", 0),
        (connect("c2", product=LEAVES), "c1", 4),
        (connect("nobody", product=LEAVES), "c1", 4),
        (leaf, None, 4),
        (leaf, "d1", 4),
        (connect(), None, 0),
        (connect(), "d1", 0),
        (connect(), "c1", 0),
        (connect(secret=WRONG), None, 4),
        (connect(secret=WRONG), "d1", 4),
        (connect("nobody"), "d1", 4),
    ):
        assert await fleet.code(wanted, certificate) == expected, (wanted, certificate)
    assert "of another device" in str(lines)
    async with fleet.service.database.begin() as tx:
        await inventory.revoke(tx, own, now=datetime.now(UTC))

    async def refused() -> bool:
        return await fleet.code(leaf, "c1") == 4

    await until(refused, "the revocation to be known")


async def test_the_first_login_with_a_certificate_activates(fleet: Fleet) -> None:
    await fleet.issue("c1", LEAVES)
    assert await fleet.code(connect("c1", product=LEAVES), "c1") == 0
    async with fleet.service.database.read() as tx:
        assert str((await registry.device(tx, "tencent", LEAVES, "c1")).state) == "activated"


async def test_a_disabled_device_is_told_so_after_its_certificate(fleet: Fleet) -> None:
    await fleet.issue("c1", LEAVES)
    async with fleet.service.database.begin() as tx:
        await registry.disable(tx, await registry.device(tx, "tencent", LEAVES, "c1"))
    wanted = connect("c1", product=LEAVES)
    assert (await fleet.code(wanted, "c1"), await fleet.code(wanted, None)) == (5, 4)
