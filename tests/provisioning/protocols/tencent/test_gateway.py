"""What a gateway asks for, through a service: every result code, and what it does to topic rights."""

import asyncio
import hashlib
import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.packets import Puback
from provisioning.app import Running
from provisioning.core import ca, certify, inventory, pki, registry
from provisioning.core.pki import write_pem
from provisioning.model.certificate import Certificate
from provisioning.model.lifecycle import State
from provisioning.model.mqtt import Message
from provisioning.model.refusal import Reason, Refusal
from provisioning.store import events
from tests.conftest import Serve, load_rows, until
from tests.provisioning.protocols.conftest import Away, Lines
from tests.tencent import KEYS, LEAVES, ROWS, Gateway, device, device_row, gateway, named, psk, quiet, signed

pytestmark = pytest.mark.server

SUBS = tuple(device_row(f"s{number}") for number in range(4))


@pytest.fixture
async def service(serve: Serve) -> Running:
    running = await serve(tencent={"connect_interval": 0.0}, database={"timeout": 1.0})
    await load_rows(running, *ROWS, *SUBS)
    return running


async def certificate(service: Running, name: str = "c1", **more: Any) -> Certificate:
    async with service.database.begin() as tx:
        owner = await registry.device(tx, "tencent", LEAVES, name)
        authority = await ca.default(tx)
        made = await certify.issue_with_key(
            tx, authority, pki.new_key(), pki.make_subject(name), now=datetime.now(UTC), days=30, device=owner, **more
        )
    return made.certificate


async def kinds(service: Running, name: str) -> list[str]:
    async with service.database.read() as tx:
        return [event.kind for event in await events.page(tx) if event.device == name]


# --- the life of a binding ---


async def test_the_life_of_a_sub_device(service: Running) -> None:
    async with gateway(service) as own:
        assert await own.ask("online", named("s1")) == [-1]
        assert await own.ask("bind", signed("s1"), signed("s2")) == [0, 0]
        assert await own.ask("bind", signed("s1"), signed("s3")) == [809, 0]
        answer = await own.say(b'{"type":"describe_sub_devices"}')
        assert answer == {
            "type": "describe_sub_devices", "payload": {"devices": [named("s1"), named("s2"), named("s3")]},
        }  # fmt: skip
        assert await own.ask("online", named("s1"), named("s2"), named("s0")) == [0, 0, -1]
        assert await own.ask("offline", named("s2"), named("s0")) == [0, -1]
        assert await own.ask("unbind", named("s1"), named("s1"), named("s0")) == [0, -1, -1]
        assert await own.ask("online", named("s1")) == [-1]
    assert await kinds(service, "s1") == ["device.registered", "device.bound", "device.activated", "device.unbound"]
    async with service.database.read() as tx:
        assert (await registry.device(tx, "tencent", KEYS, "s2")).state is State.ACTIVATED
        assert (await registry.device(tx, "tencent", KEYS, "s3")).state is State.ALLOCATED, "bound is not yet there"


async def test_online_gives_topics_and_offline_takes_them(service: Running) -> None:
    event, control = f"{KEYS}/s1/event", f"{KEYS}/s1/control"
    async with gateway(service) as own, device(service, "s2") as other:
        client = own.client
        assert await own.ask("bind", signed("s1")) == [0]
        assert await client.subscribe((control, 1)) == (0x80,), "bound alone it is not there"
        assert await own.ask("online", named("s1")) == [0]
        assert await client.subscribe((control, 1)) == (1,)
        assert await client.subscribe((f"$gateway/operation/result/{KEYS}/s1", 1)) == (0x80,)
        client.publish(event, b"1", qos=1)
        assert await client.read() == Puback(7)
        service.broker.route(_control("s1"))
        assert (await client.read_publish()).message.topic == control
        assert await own.ask("offline", named("s1")) == [0]
        service.broker.route(_control("s1"))
        await quiet(client)
        await quiet(other)
        client.publish(event, b"1", qos=1)
        assert await client.is_closed()


def _control(name: str) -> Message:
    return Message(f"{KEYS}/{name}/control", b"x")


async def test_what_comes_behind_a_message_rests_on_its_answer(service: Running) -> None:
    """A gateway need not wait: what it sends in one go is served in order."""
    async with gateway(service) as own:
        assert await own.ask("bind", signed("s1")) == [0]
        own.client.publish(own.topic, _message("online", named("s1")))
        own.client.publish(f"{KEYS}/s1/event", b"1", qos=1, packet_id=8)
        own.client.publish(own.topic, _message("unbind", named("s1")))
        own.client.publish(f"{KEYS}/s1/event", b"1", qos=1, packet_id=9)
        got = [await own.client.read() for _ in range(3)]
        assert [type(each).__name__ for each in got] == ["Publish", "Puback", "Publish"]
        assert await own.client.read() is None, "after unbind its topics are forbidden"


def _message(verb: str, *devices: dict[str, Any]) -> bytes:
    return json.dumps({"type": verb, "payload": {"devices": devices}}).encode()


async def test_a_new_session_begins_without_sub_devices(service: Running) -> None:
    async with gateway(service, clean=False) as own:
        assert await own.ask("bind", signed("s1")) == [0]
        assert await own.ask("online", named("s1")) == [0]
        assert await own.client.subscribe((f"{KEYS}/s1/control", 1)) == (1,)
    await until(lambda: not len(service.sessions), "the gateway to go")
    service.broker.route(replace(_control("s1"), qos=1))  # it must not wait for who was there for the device before
    async with gateway(service, clean=False) as own:
        service.broker.route(_control("s1"))
        await quiet(own.client)
        own.client.publish(f"{KEYS}/s1/event", b"1")
        assert await own.client.is_closed()


@pytest.mark.parametrize("verb", ["online", "offline", "unbind"])
async def test_a_refusal_leaves_no_rights(service: Running, verb: str) -> None:
    """A binding that has gone unheard, while changes were not reported for instance, ends when it is asked for."""
    async with gateway(service) as own:
        assert await own.ask("bind", signed("s1"), signed("s2")) == [0, 0]
        assert await own.ask("online", named("s1"), named("s2")) == [0, 0]
        async with service.database.begin() as tx:
            await tx.db.execute("DELETE FROM binding WHERE sub_device_id = (SELECT id FROM device WHERE key = 's1')")
        assert await own.ask(verb, named("s1")) == [-1]
        own.client.publish(f"{KEYS}/s2/event", b"1")
        await quiet(own.client)
        own.client.publish(f"{KEYS}/s1/event", b"1")
        assert await own.client.is_closed()


# --- result codes ---


async def test_every_code_of_bind(service: Running) -> None:
    await load_rows(service, device_row("off", disabled=True))
    now = int(time.time())
    async with gateway(service) as own, gateway(service, "d2") as other:
        assert await other.ask("bind", signed("s3")) == [0]
        for entry, expected in (
            (signed("s0", signature="AAAA"), 803),
            (signed("s0", key=b"wrong"), 803),
            (signed("s0", signmethod="hmacmd5"), 804),
            (signed("s0", timestamp=now - 301), 805),
            (signed("s0", timestamp=now + 310), 805),
            (signed("s3"), 806),
            (signed("d2"), 807),
            (signed("d1"), 807),
            (signed("off"), 808),
            (signed("s0", authtype="certificate"), 810),
            (signed("nobody"), 802),
            (signed("s0", product="NOPRODUCT1"), 802),
            (signed("s 0"), 802),
            (signed(""), 802),
            (signed("s0", product=""), 801),
            (signed("s0", signature=None), 801),
            (signed("s0", authtype="what"), 801),
            (signed("s0", random=-1), 801),
            ({}, 801),
            (signed("s0", signmethod="hmacsha1"), 0),
        ):
            assert await own.ask("bind", entry) == [expected], entry


async def test_a_gateway_behind_a_gateway(service: Running) -> None:
    async with gateway(service) as own, gateway(service, "d2") as other:
        assert await other.ask("bind", signed("d1")) == [0]
        assert await own.ask("bind", signed("s1")) == [808]


async def test_keys_of_sub_devices(service: Running) -> None:
    """The psk decoded [vendor], or its text [client]."""
    async with gateway(service) as own:
        assert await own.ask("bind", signed("s1"), signed("s2", key=psk("s2").encode())) == [0, 0]


async def test_certificates_of_sub_devices(service: Running) -> None:
    made = await certificate(service)
    names = [f"c{number}" for number in range(2, 6)]
    await load_rows(service, *(device_row(name, LEAVES) for name in names))
    ders = [made.der, *[(await certificate(service, name)).der for name in names]]
    keys = [
        hashlib.sha1(ders[0]).hexdigest(), hashlib.md5(ders[1]).hexdigest(),
        hashlib.sha1(write_pem(ders[2]).encode()).hexdigest(), hashlib.md5(write_pem(ders[3]).encode()).hexdigest(),
        hashlib.sha256(ders[4]).hexdigest(),
    ]  # fmt: skip
    async with gateway(service) as own:
        for name, key, expected in zip(["c1", *names], keys, [0, 0, 0, 0, 803], strict=True):
            entry = signed(name, LEAVES, key=key.encode(), authtype="certificate")
            assert await own.ask("bind", entry) == [expected], name
        async with service.database.begin() as tx:
            await inventory.revoke(tx, made, now=datetime.now(UTC))
        assert await own.ask("unbind", named("c1", LEAVES)) == [0]
        entry = signed("c1", LEAVES, key=keys[0].encode(), authtype="certificate")
        assert await own.ask("bind", entry) == [803], "a certificate that is revoked proves nothing"
        assert await own.ask("bind", signed("c2", LEAVES)) == [810], "its product has certificates"


async def test_codes_of_the_others(service: Running) -> None:
    async with gateway(service) as own:
        assert await own.ask("bind", signed("s1"), signed("s2")) == [0, 0]
        async with service.database.begin() as tx:
            await registry.disable(tx, await registry.device(tx, "tencent", KEYS, "s2"))
        assert await own.client.is_closed(), "its gateway begins again without it"
    async with gateway(service) as own:
        for verb in ("online", "offline", "unbind"):
            stated = [named("nobody"), named("s 1"), named("s1", ""), named("s0"), {}]
            assert await own.ask(verb, *stated) == [802, 802, 801, -1, 801]
        assert await own.ask("online", named("s1"), named("s2")) == [0, 808]


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (b"", ""), (b"{", ""), (b"[]", ""), (b"7", ""), (b'{"type":7}', ""), (b'{"type":"what"}', "what"),
        (b'{"type":"bind"}', "bind"), (b'{"type":"bind","payload":{"devices":[]}}', "bind"),
        (b'{"type":"online","payload":{"devices":{}}}', "online"), (b"\xff\xfe", ""), (b"[" * 9_000, ""),
        (b'{"type":"bind","payload":{"devices":[%s1]}}' % (b"1," * 1_500), "bind"),
    ],
)  # fmt: skip
async def test_what_is_no_request(service: Running, lines: Lines, payload: bytes, kind: str) -> None:
    async with gateway(service) as own:
        answer = await own.say(payload)
    assert answer == {
        "type": kind, "payload": {"devices": [{"product_id": "", "device_name": "", "result": 801}]},
    }  # fmt: skip
    (line,) = (line for line in lines if line["event"] == "mqtt.gateway")
    assert (line["outcome"], line["reason"]) == ("refused", "malformed")


async def test_one_line_for_each_message(service: Running, lines: Lines) -> None:
    async with gateway(service) as own:
        await own.ask("bind", signed("s1"), signed("s2", signature="no"))
        await own.ask("online", named("s1"))
    first, second = (line for line in lines if line["event"] == "mqtt.gateway")
    assert (first["type"], first["devices"], first["outcome"], first["results"]) == ("bind", 2, "refused", [803])
    assert (second["type"], second["devices"], second["outcome"]) == ("online", 1, "accepted")
    assert (first["protocol"], first["product"], first["device"]) == ("tencent", KEYS, "d1")


# --- when things go wrong ---


async def test_without_the_database(service: Running, away: Away, lines: Lines) -> None:
    async with gateway(service) as own:
        assert await own.ask("bind", signed("s1")) == [0]
        async with away():
            lines.clear()
            assert await own.ask("online", named("s1"), named("s2")) == [-2, -2]
            (line,) = (line for line in lines if line["event"] == "mqtt.gateway")
            assert (line["outcome"], line["log_level"]) == ("failed", "warning")
            assert "unavailable" in line["reason"]
        await quiet(own.client)

        async def back() -> bool:
            return await own.ask("online", named("s1")) == [0]

        await until(back, "the database to be back")


async def test_a_mistake_of_ours(service: Running, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_arguments: object) -> None:
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr("provisioning.core.gateway.Gateways.unbind", broken)
    async with gateway(service) as own:
        assert await own.ask("unbind", named("s1")) == [-2]
        (line,) = (line for line in lines if line["event"] == "mqtt.gateway")
        assert (line["outcome"], line["reason"], bool(line["exc_info"])) == ("failed", "internal", True)
        await quiet(own.client)


async def test_who_goes_gets_no_answer_and_it_is_done_all_the_same(service: Running) -> None:
    async with device(service) as client:
        client.publish(Gateway(client, "d1").topic, _message("bind", signed("s1")), qos=1)
        assert await client.read() == Puback(7)
        client.abort()

    async def bound() -> bool:
        return "device.bound" in await kinds(service, "s1")

    await until(bound, "the binding")


async def test_two_gateways_race_for_one_device(service: Running) -> None:
    async with gateway(service) as one, gateway(service, "d2") as other:
        for _ in range(5):
            found = await asyncio.gather(one.ask("bind", signed("s1")), other.ask("bind", signed("s1")))
            assert sorted(found) == [[0], [806]]
            winner = one if found[0] == [0] else other
            assert await winner.ask("unbind", named("s1")) == [0]


async def test_two_gateways_race_for_each_other(service: Running) -> None:
    async with gateway(service) as one, gateway(service, "d2") as other:
        found = await asyncio.gather(one.ask("bind", signed("d2")), other.ask("bind", signed("d1")))
        assert sorted(found) == [[0], [808]] or sorted(found) == [[0], [807]]


async def test_the_limit_of_a_gateway(serve: Serve) -> None:
    running = await serve(tencent={"connect_interval": 0.0, "max_sub_devices": 3})
    await load_rows(running, *ROWS, *SUBS)
    async with gateway(running) as own:
        assert await own.ask("bind", signed("s0"), signed("s1"), signed("s2"), signed("s3")) == [0, 0, 0, 808]
        assert await own.ask("unbind", named("s0")) == [0]
        assert await own.ask("bind", signed("s3"), signed("s0")) == [0, 808]


async def test_a_device_that_is_deleted_leaves_no_binding(service: Running) -> None:
    async with gateway(service) as own:
        assert await own.ask("bind", signed("s1"), signed("s2")) == [0, 0]
        async with service.database.begin() as tx:
            await registry.delete_device(tx, await registry.device(tx, "tencent", KEYS, "s1"))
        assert await own.client.is_closed()
    async with gateway(service) as own:
        answer = await own.say(b'{"type":"describe_sub_devices"}')
        assert answer["payload"]["devices"] == [named("s2")]
        async with service.database.begin() as tx:
            await registry.delete_device(tx, await registry.device(tx, "tencent", KEYS, "d1"))
        assert await own.client.is_closed()
    async with gateway(service, "d2") as other:
        assert await other.ask("bind", signed("s2")) == [0]


async def test_a_gateway_that_is_gone(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its message and the look at it."""

    async def gone(*_arguments: object) -> None:
        raise Refusal(Reason.UNKNOWN, device="d1")

    monkeypatch.setattr("provisioning.core.gateway.Gateways.sub_devices", gone)
    async with gateway(service) as own:
        answer = await own.say(b'{"type":"describe_sub_devices"}')
        assert answer["payload"]["devices"] == [{"product_id": "", "device_name": "", "result": -2}]
