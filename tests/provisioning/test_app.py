import asyncio
import contextlib
import itertools
import json
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from broker import packets
from broker.sessions import Sessions
from provisioning import doors, follow
from provisioning.app import Running, admissions, gatehouse
from provisioning.core import registry
from provisioning.follow import Follower, following
from provisioning.model.admission import Admission
from provisioning.model.identity import Identity
from provisioning.model.mqtt import Peer
from provisioning.model.refusal import Reason
from provisioning.model.registry import Device
from provisioning.opening import StartError
from provisioning.protocols.enos import mqtt_wire
from provisioning.store import devices, events
from provisioning.store.changes import Change, What
from provisioning.store.changes import Listener as ChangeListener
from provisioning.store.credentials import Credentials
from provisioning.store.database import Database, Tx, open_database
from provisioning.store.holdings import Holdings
from provisioning.store.sealing import Sealer
from provisioning.web.world import Endpoints
from tests.conftest import MASTER_KEY, Serve, Spawn, load_rows, service_environment, settings_for, until
from tests.devices import DEVICE, GROUP, PRODUCT, Raw, bootstrap_body, connect, login, raw
from tests.provisioning.store.registry import execute, locked_out

pytestmark = pytest.mark.server

WITHIN = 1.0
"""Seconds in which a change in one process must bite in another."""


@asynccontextmanager
async def session(running: Running, credentials: dict[str, str] | None = None) -> AsyncIterator[Raw]:
    """A device that is logged in."""
    async with raw(running.mqtt.port) as client:
        assert (await client.login(connect(credentials or login()))).code == 0
        yield client


async def code(port: int, credentials: dict[str, str]) -> int:
    async with raw(port) as client:
        return (await client.login(connect(credentials))).code


async def bootstrap(port: int, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"http://127.0.0.1:{port}/2.4.0/bootstrap", json=body) as answer,
    ):
        return answer.status, await answer.json()


async def the_device(tx: Tx) -> Device:
    return await registry.device(tx, "enos", "pk1", "dk1")


@pytest.fixture
async def two(serve: Serve) -> tuple[Running, Running]:
    """Two services on one database, and the fleet of everybody."""
    one, other = await serve(), await serve()
    await load_rows(one, PRODUCT, GROUP, DEVICE)
    return one, other


async def test_further_ports(serve: Serve) -> None:
    """The same listener behind each: TLS is spoken where its main port speaks it."""
    running = await serve(mqtt={"more_ports": [0]}, mqtts={"more_ports": [0, 0]})
    await load_rows(running, PRODUCT, DEVICE)
    assert running.ports["mqtt"] == running.mqtt.port
    more = running.more_ports
    assert (len(more["mqtt_more"]), len(more["mqtts_more"])) == (1, 2)
    assert await code(more["mqtt_more"][0], login()) == 0
    for port in more["mqtts_more"]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        assert (await Raw(reader, writer).login(connect(login()))).code == 5, "its product has no certificates"
        writer.transport.abort()


# --- what is changed through one bites in the other ---


def no_session(running: Running) -> bool:
    return len(running.sessions) == 0


Verb = Callable[[Tx], Awaitable[object]]


async def _disable(tx: Tx) -> None:
    await registry.disable(tx, await the_device(tx))


async def _reset(tx: Tx) -> None:
    await registry.reset(tx, await the_device(tx))


async def _delete(tx: Tx) -> None:
    await registry.delete_device(tx, await the_device(tx))


async def _new_secret(tx: Tx) -> None:
    await registry.new_secret(tx, await the_device(tx))


async def _delete_product(tx: Tx) -> None:
    await registry.delete_product(tx, await registry.product(tx, "enos", "pk1"), cascade=True)


@pytest.mark.parametrize(
    ("change", "later"), [(_disable, 5), (_reset, 4), (_delete, 4), (_new_secret, 4), (_delete_product, 4)]
)
async def test_a_change_ends_the_session_everywhere(two: tuple[Running, Running], change: Verb, later: int) -> None:
    one, other = two
    async with session(other) as client:
        async with one.database.begin() as tx:
            await change(tx)
        if change is _disable:
            command = await client.read_publish(WITHIN)
            assert command.message.topic == "/sys/pk1/dk1/thing/disable"
            assert json.loads(command.message.payload)["method"] == "thing.disable"
            client.publish("/sys/pk1/dk1/thing/disable_reply", b'{"id":"1","code":200,"data":""}')
        assert await client.is_closed(WITHIN)
    for running in two:
        assert await code(running.mqtt.port, login()) == later
        await until(partial(no_session, running), "the session to be gone")


async def test_a_kick_ends_the_session_and_the_device_may_come_again(two: tuple[Running, Running]) -> None:
    one, other = two
    async with session(other) as client:
        async with one.database.begin() as tx:
            await devices.kick(tx, await the_device(tx))
        assert await client.is_closed(WITHIN)
    assert await code(other.mqtt.port, login()) == 0


async def test_a_change_of_the_product_is_known_everywhere(two: tuple[Running, Running]) -> None:
    one, other = two
    dynamic = login(secret="ps1", mode="3")
    assert await code(other.mqtt.port, dynamic) == 0
    await execute(one.database, "UPDATE product SET dynamic_activation = false")

    async def is_off() -> bool:
        return await code(other.mqtt.port, dynamic) == 5

    await until(is_off, "the switch", WITHIN)


async def test_a_new_device_is_known_where_it_was_missing(two: tuple[Running, Running]) -> None:
    one, other = two
    new = login("new", "secret")
    assert await code(other.mqtt.port, new) == 4
    await load_rows(one, DEVICE | {"deviceKey": "new", "deviceSecret": "secret"})

    async def is_there() -> bool:
        return await code(other.mqtt.port, new) == 0

    await until(is_there, "the device", WITHIN)


async def test_a_harmless_change_leaves_the_session_alone(two: tuple[Running, Running]) -> None:
    one, other = two
    async with session(other) as client:
        await execute(one.database, "UPDATE device SET name = 'x', asset = 'y'")
        await execute(one.database, "UPDATE product SET name = 'x', dynamic_activation = false")
        assert await client.ping() == []
        assert await code(one.mqtt.port, login()) == 0


# --- the database goes and comes back ---


LISTENER = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"
)


async def test_what_was_changed_while_nobody_told_is_noticed_afterwards(
    postgres: str, serve: Serve, database: Database
) -> None:
    running = await serve()
    keys = ["disabled", "reset", "deleted", "replaced", "untouched"]
    await load_rows(running, PRODUCT, *(DEVICE | {"deviceKey": key} for key in keys))
    async with contextlib.AsyncExitStack() as stack:
        clients = {key: await stack.enter_async_context(session(running, login(key))) for key in keys}
        # Without triggers nobody tells: as if the connection had been lost at that moment.
        await execute(
            database,
            """
            SET session_replication_role = replica;
            UPDATE device SET disabled = true WHERE key = 'disabled';
            UPDATE device SET secret = 'x', epoch = epoch + 1 WHERE key = 'reset';
            DELETE FROM device WHERE key = 'deleted';
            UPDATE device SET id = id + 1000 WHERE key = 'replaced';
            """,
        )
        for client in clients.values():
            await client.ping()
        await execute(database, LISTENER)
        command = await clients["disabled"].read_publish()
        assert command.message.topic == "/sys/pk1/disabled/thing/disable"
        for key in ("disabled", "reset", "deleted", "replaced"):
            assert await clients[key].is_closed(), key
        assert await clients["untouched"].ping() == []


async def test_without_the_database_everybody_is_told_to_come_again(
    postgres: str, service: Running, database: Database
) -> None:
    await load_rows(service, PRODUCT, GROUP, DEVICE)
    assert await code(service.mqtt.port, login()) == 0
    async with session(service) as live:
        async with locked_out(postgres, database.url):
            await until(lambda: not service.credentials._serving, "the loss to be noticed")
            assert await code(service.mqtt.port, login()) == 3
            status, answer = await bootstrap(service.http.port, bootstrap_body())
            assert (status, answer["code"], answer["data"]) == (503, 99500, None)
            assert set(answer) == {"code", "msg", "requestId", "data"}
            assert await live.ping() == []
            async with aiohttp.ClientSession() as client:
                async with client.get(f"http://127.0.0.1:{service.http.port}/readyz") as ready:
                    assert ready.status == 503
                async with client.get(f"http://127.0.0.1:{service.http.port}/healthz") as healthy:
                    assert healthy.status == 200
        await until(lambda: service.credentials._serving, "the return")
        assert await live.ping() == []
    assert await code(service.mqtt.port, login()) == 0
    assert (await bootstrap(service.http.port, bootstrap_body()))[0] == 200


# --- start and stop ---


async def test_what_it_does_not_start_with_is_told_in_one_line(
    database_url: str, data_directory: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await serve()
    file = data_directory / "file"
    file.write_text("nonsense\n")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"master_key": "00" * 32}, r"database: master key: .*another master key"),
        ({"master_key": "geheim"}, "master key: the master key is neither base64 nor hex"),
        (
            {"database": {"url": "postgresql://u:geheim@127.0.0.1:1/d"}},
            "database: cannot be used: .*GATEHOUSE_DATABASE__URL",
        ),
        ({"database": {"url": "postgresql://u:gehe/im@h/d"}}, "database: the URL is not of the form"),
        ({"mqtt": {"port": running.mqtt.port}}, f"mqtt: cannot listen on 127.0.0.1:{running.mqtt.port}: "),
        (
            {"mqtts": {"more_ports": [running.mqtts.port]}},
            f"mqtts: cannot listen on 127.0.0.1:{running.mqtts.port}: .*GATEHOUSE_MQTTS__MORE_PORTS",
        ),
        ({"http": {"port": running.http.port}}, f"http: cannot listen on 127.0.0.1:{running.http.port}: "),
        ({"demo": str(file)}, "demo: .*line 1: the line is not JSON"),
        ({"demo": "/nowhere"}, "demo: cannot read /nowhere"),
    ]
    for overrides, message in cases:
        with pytest.raises(StartError, match=message) as caught:
            async with gatehouse(settings_for(database_url, **overrides)):
                pytest.fail(f"it started with {overrides}")
        assert "\n" not in str(caught.value)
        assert "gehe" not in str(caught.value)
    monkeypatch.setattr("provisioning.store.changes.LONGEST_WAIT", 0.05)
    monkeypatch.setattr("provisioning.store.changes.Listener.run", lambda _self: asyncio.Event().wait())
    with pytest.raises(StartError, match="LISTEN does not work"):
        async with gatehouse(settings_for(database_url)):
            pytest.fail("it started")


async def test_a_timeout_inside_is_not_taken_for_one_of_the_start(database_url: str) -> None:
    with pytest.raises(TimeoutError, match="of my own"):
        async with gatehouse(settings_for(database_url)):
            raise TimeoutError("of my own")


async def test_the_demo_fleet_does_not_leave_this_machine(database_url: str, data_directory: Path) -> None:
    demo = data_directory / "demo.ndjson"
    demo.write_text("\n".join(json.dumps(row) for row in (PRODUCT, GROUP, DEVICE)))
    async with gatehouse(settings_for(database_url, demo=str(demo))) as running:
        assert running.demo is not None
        assert running.demo.created == 3
        assert await code(running.mqtt.port, login()) == 0
    for section in ("mqtt", "http"):
        with pytest.raises(
            StartError, match=rf"{section}.host would leave .* `gatehouse product delete pk1 --protocol enos --cascade`"
        ):
            async with gatehouse(settings_for(database_url, **{section: {"host": "0.0.0.0"}})):
                pytest.fail("it listens")
    async with gatehouse(settings_for(database_url, demo=str(demo))) as running:
        assert running.demo is None, "it is loaded into an empty registry only"
        async with running.database.begin() as tx:
            await registry.delete_product(tx, await registry.product(tx, "enos", "pk1"), cascade=True)
    async with gatehouse(settings_for(database_url, mqtt={"host": "0.0.0.0"})) as running:
        assert running.mqtt.port


async def test_stop_ends_sessions_and_leaves_no_task_behind(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With logins under way, a stranger who says nothing, and a device that is logged in."""
    before = asyncio.all_tasks()
    waiting = 0

    async def never(_identity: object) -> Any:
        nonlocal waiting
        waiting += 1
        await asyncio.Event().wait()

    async with contextlib.AsyncExitStack() as clients:
        async with gatehouse(settings_for(database_url)) as running:
            await load_rows(running, PRODUCT, DEVICE)
            live = await clients.enter_async_context(session(running))
            stranger = await clients.enter_async_context(raw(running.mqtt.port))
            monkeypatch.setattr(running.credentials, "look_up", never)
            for i in range(20):
                client = await clients.enter_async_context(raw(running.mqtt.port))
                client.send(packets.write_connect(connect(login(f"new{i}"))))
            await until(lambda: waiting == 20, "the logins to be under way")
        assert await live.is_closed(0.5)
        assert await stranger.is_closed(0.5)
    await until(lambda: asyncio.all_tasks() <= before, "the tasks to end")


async def test_admissions_alone(database_url: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async with gatehouse(settings_for(database_url)) as running:
        await load_rows(running, PRODUCT, DEVICE)
    for name, value in service_environment(database_url).items():
        monkeypatch.setenv(name, value)
    peer = Peer("192.0.2.1", 1)
    async with admissions() as decide:
        verdict = decide(connect(login()), peer)
        assert isinstance(verdict, asyncio.Task)
        assert isinstance(await verdict, Admission)
        assert isinstance(decide(connect(login()), peer), Admission)
        await execute(database, "UPDATE device SET disabled = true")

        async def is_refused() -> bool:
            answer = decide(connect(login()), peer)
            return not isinstance(await answer if isinstance(answer, asyncio.Task) else answer, Admission)

        await until(is_refused, "the change")


def test_endpoints_are_those_configured_or_those_listened_on() -> None:
    for overrides, murl, hurl in (
        ({}, "tcp://127.0.0.1:1", "http://127.0.0.1:0"),
        ({"mqtt": {"host": "0.0.0.0"}}, "tcp://asked:1", "http://127.0.0.1:0"),
        ({"http": {"host": "::"}}, "tcp://127.0.0.1:1", "http://asked:0"),
        ({"mqtt": {"host": "::1"}}, "tcp://[::1]:1", "http://127.0.0.1:0"),
        ({"endpoints": {"murl": "ssl://m.example.org:8883"}}, "ssl://m.example.org:8883", "http://127.0.0.1:0"),
        ({"endpoints": {"murl": "tcp://[2001:db8::1]:1883"}}, "tcp://[2001:db8::1]:1883", "http://127.0.0.1:0"),
        ({"endpoints": {"hurl": "https://h.example.org/x"}}, "tcp://127.0.0.1:1", "https://h.example.org/x"),
    ):
        endpoints = Endpoints()
        doors.tell_endpoints(endpoints, settings_for("unused", **overrides), 1)
        assert (endpoints.murl("asked"), endpoints.hurl("asked")) == (murl, hurl)


# --- a process of its own ---


async def test_what_was_answered_survives_a_kill(spawn: Spawn, database_url: str, sealer: Sealer) -> None:
    """`kill -9` in the middle of enrolments and activations: each answer that got out is in the database."""
    process = await spawn("serve", **service_environment(database_url))
    ready = await process.ready()
    async with open_database(database_url, sealer) as database:
        async with gatehouse(settings_for(database_url)) as helper:
            keys = [f"k{i}" for i in range(200)]
            rows = [DEVICE | {"deviceKey": key, "deviceSecret": f"s-{key}"} for key in keys]
            await load_rows(helper, PRODUCT, GROUP, *rows)
        triples: list[dict[str, Any]] = []
        activated: list[str] = []
        secrets: list[tuple[str, str]] = []

        async def enrol(worker: int) -> None:
            async with aiohttp.ClientSession() as client:
                for i in itertools.count():
                    body = bootstrap_body(f"SN{worker}-{i}")
                    async with client.post(f"http://127.0.0.1:{ready['http']}/2.4.0/bootstrap", json=body) as answer:
                        assert answer.status == 200
                        triple = await answer.json()
                    triples.append({"sn": body["deviceSn"]} | triple)

        async def log_in(part: list[str]) -> None:
            for key in part:
                if await code(ready["mqtt"], login(key, f"s-{key}")) == 0:
                    activated.append(key)

        async def activate(part: list[str]) -> None:
            for key in part:
                async with raw(ready["mqtt"]) as client:
                    if (await client.login(connect(login(key, "ps1", mode="3")))).code == 0:
                        push = await client.read_publish()
                        secrets.append((key, json.loads(push.message.payload)["params"]["deviceSecret"]))

        workers = [asyncio.create_task(enrol(i)) for i in range(4)]
        workers += [asyncio.create_task(log_in(keys[:100])), asyncio.create_task(activate(keys[100:]))]
        await until(lambda: len(triples) > 50 and len(activated) > 20 and len(secrets) > 2, "answers")
        await process.kill()
        await asyncio.gather(*workers, return_exceptions=True)
        async with database.read() as tx:
            group = await registry.group(tx, "enos", "g1")
            found = await devices.by_serials(tx, group, [triple["sn"] for triple in triples])
            for triple in triples:
                device = found[triple["sn"]]
                assert (device.product, device.key, device.secret) == (triple["pk"], triple["dk"], triple["ds"])
            product = await registry.product(tx, "enos", "pk1")
            by_key = await devices.by_keys(tx, product.id, keys)
            assert {str(by_key[key].state) for key in activated} == {"activated"}
            assert all(by_key[key].activations >= 1 and by_key[key].secret == secret for key, secret in secrets)
            kinds = [(event.kind, event.device) for event in await events.page(tx, limit=100_000)]
        assert all(("device.activated", key) in kinds for key in activated)
        assert all(("device.secret_issued", key) in kinds for key, _ in secrets)
        registered = [device for kind, device in kinds if kind == "device.registered"]
        assert len(registered) == len(set(registered))
    again = await spawn("serve", **service_environment(database_url))
    ready = await again.ready()
    assert (await bootstrap(ready["http"], bootstrap_body(triples[0]["sn"])))[1]["ds"] == triples[0]["ds"]
    assert await code(ready["mqtt"], login(triples[0]["dk"], triples[0]["ds"])) == 0


async def test_no_line_of_a_whole_run_holds_a_secret(spawn: Spawn, database_url: str) -> None:
    names = {"productSecret": "ps-geheim", "password": "gp-geheim", "deviceSecret": "ds-geheim"}
    async with gatehouse(settings_for(database_url)) as helper:
        await load_rows(
            helper,
            PRODUCT | {"productSecret": names["productSecret"]},
            GROUP | {"password": names["password"]},
            DEVICE | {"deviceSecret": names["deviceSecret"]},
            DEVICE | {"deviceKey": "dk2", "deviceSecret": "ds2-geheim"},
        )
    process = await spawn("serve", **service_environment(database_url, GATEHOUSE_LOG__LEVEL="debug"))
    ready = await process.ready()
    used = [*names.values(), "ds2-geheim", MASTER_KEY.hex()]
    # bootstrap: right, repeated, wrong, malformed
    body = bootstrap_body("SN1", password="gp-geheim")
    status, triple = await bootstrap(ready["http"], body)
    assert status == 200
    used += [triple["ds"], body["dpsSign"]]
    for wrong in (
        bootstrap_body("SN1", password="wrong-geheim"),
        bootstrap_body("SN1", password="gp-geheim", at=1_000_000_000_000),
        bootstrap_body("SN1", group="nowhere", password="gp-geheim"),
        bootstrap_body("S N", password="gp-geheim"),
        bootstrap_body("SN1", password="gp-geheim", timezone="\ud800\0", deviceName={"defaultValue": "\0\ud800"}),
        bootstrap_body("SN1", password="gp-geheim", dpsSignMethod=["md5"]),
    ):
        used.append(wrong["dpsSign"])
        assert (await bootstrap(ready["http"], wrong))[0] in range(400, 500)
    async with aiohttp.ClientSession() as client:
        for data in (b"{", b"\xff", b'"ds-geheim"', b"[" * 10_000, json.dumps({"dpsSign": "ds-geheim"}).encode()):
            url = f"http://127.0.0.1:{ready['http']}/2.4.0/bootstrap"
            async with client.post(url, data=data, headers={"Content-Type": "application/json"}) as answer:
                assert answer.status in range(400, 500)
        async with client.get(f"http://127.0.0.1:{ready['http']}/nowhere?token=ds-geheim") as answer:
            assert answer.status == 404
    # logins: right, wrong, malformed; a publish
    for credentials, expected in (
        (login(triple["dk"], triple["ds"]), 0),
        (login(secret="ds-geheim"), 0),
        (login(secret="wrong-geheim"), 4),
        (login("nobody", "ds-geheim"), 4),
        (login(secret="ds-geheim", mode="9"), 2),
        (login(secret="ds-geheim", mode="4"), 5),
        ({"identifier": "x", "username": "y", "password": "ds-geheim"}, 4),
    ):
        used.append(credentials["password"])
        assert await code(ready["mqtt"], credentials) == expected
    async with raw(ready["mqtt"]) as device:
        assert (await device.login(connect(login(secret="ds-geheim")))).code == 0
        device.publish("/sys/pk1/dk1/thing/measurepoint/post", b'{"id":"1","params":{"x":"payload-geheim"}}')
        device.publish("/sys/other/x/thing/event/geheim", b"payload-geheim")
        await device.ping()
    # activation
    async with raw(ready["mqtt"]) as device:
        wanted = login("dk2", "ps-geheim", mode="3")
        used.append(wanted["password"])
        assert (await device.login(connect(wanted))).code == 0
        push = await device.read_publish()
        assert b"ds2-geheim" in push.message.payload
        reply = mqtt_wire.reply_to(push.message.topic)
        device.publish(reply, b'{"id":"1","code":200,"data":"payload-geheim"}', qos=1, packet_id=1)
        assert isinstance(await device.read(), packets.Puback)
    # what is no MQTT at all
    for data in (
        b"GET /?token=ds-geheim HTTP/1.1\r\n\r\n",
        b"\x10\xff\xff\xff\xff\xff",
        b"\x10\x05\x00\x04MQTTds-geheim",
    ):
        async with raw(ready["mqtt"]) as stranger:
            stranger.send(data)
            assert await stranger.is_closed()
    process.process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
    output = "\n".join(process.lines + process.errors)
    assert all(line.startswith("{") for line in process.lines)
    assert process.errors == []
    assert "Traceback" not in output
    names_seen = {line["event"] for line in process.events()}
    assert {"ready", "mqtt.login", "http.bootstrap", "device.registered", "device.activated", "stopping"} <= names_seen
    assert [secret for secret in [*used, "payload-geheim"] if secret.lower() in output.lower()] == []
    for line in process.events():
        assert list(line)[:3] == ["timestamp", "level", "event"]


async def test_a_reader_of_the_log_that_goes_away_does_not_stop_the_service(spawn: Spawn, database_url: str) -> None:
    process = await spawn("serve", **service_environment(database_url))
    ready = await process.ready()
    transport = process.process._transport  # type: ignore[attr-defined]
    transport.get_pipe_transport(1).close()
    for _ in range(5):
        assert await code(ready["mqtt"], login("nobody")) in {4, 5}
    assert process.process.returncode is None
    os.kill(process.process.pid, signal.SIGTERM)
    await asyncio.wait_for(process.process.wait(), 10)


class Holder:
    """A session as the sessions see it."""

    device_id = 1
    epoch = 0
    certificate: tuple[int, str] | None = None
    reason: Reason | None = None

    def taken_over(self) -> None:
        pytest.fail("nobody came")

    def dismiss(self, reason: Reason) -> None:
        self.reason = reason


async def test_a_login_that_was_decided_just_before_the_change_is_ended_too(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its verdict waits for the next turn of the loop when the change arrives: it has no session yet."""
    told: list[Callable[[Change], None]] = []

    class Told(ChangeListener):
        def __init__(self, url: str, **calls: Any) -> None:
            told.append(calls["on_change"])
            super().__init__(url, **calls)

    monkeypatch.setattr(follow, "Listener", Told)
    cache = Credentials(database, size=10, negative_ttl=1, clock=time.monotonic)
    sessions, holder, identity = Sessions(), Holder(), Identity("enos", "pk1", "dk1")
    async with following(database, Follower(database, cache, Holdings(database, size=10), sessions)):
        asyncio.get_running_loop().call_soon(sessions.enter, identity, holder)
        told[0](Change(What.DISABLED, "enos", "pk1", "dk1"))
        await until(lambda: holder.reason, "the end")
    assert holder.reason is Reason.DISABLED
