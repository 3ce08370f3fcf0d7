"""Bootstrap and get/conn through a service: what devices see, byte for byte where it matters."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from provisioning.app import Running
from provisioning.core import registry
from provisioning.model.lifecycle import State
from provisioning.model.registry import Device
from tests.conftest import Serve, load_rows, until
from tests.devices import GROUP, PRODUCT, bootstrap_body, connect, get_conn_proof, login, now_ms, raw
from tests.provisioning.protocols.conftest import Away, Lines

pytestmark = pytest.mark.server

WAITING = GROUP | {"groupId": "waiting", "password": "wp", "autoActivation": False}
CLOSED = GROUP | {"groupId": "closed", "password": "cp", "autoRegister": False}
CLOCKLESS = GROUP | {"groupId": "clockless", "password": "kp", "signFreshness": 0}
OTHER = GROUP | {"groupId": "other", "password": "op"}
HOMELESS = {name: value for name, value in GROUP.items() if name != "productKey"} | {
    "groupId": "homeless",
    "password": "hp",
}
UNAUTHORIZED = (401, 35603, "Unauthorized to access the resource")
NOT_FOUND = (404, 35404, "Group/sn not found")


@dataclass(frozen=True)
class Reply:
    status: int
    text: str
    content_type: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)

    def triple(self) -> dict[str, str]:
        assert self.status == 200, self.text
        assert self.content_type == "application/json"
        body = self.body
        assert set(body) == {"murl", "hurl", "pk", "dk", "ds"}
        assert all(isinstance(value, str) and value for value in body.values())
        return dict(body)

    def error(self, status: int, code: int, message: str) -> None:
        assert (self.status, self.content_type) == (status, "application/json"), self.text
        assert '"ds"' not in self.text
        body = self.body
        assert set(body) == {"code", "msg", "requestId", "data"}
        assert (body["code"], body["msg"], body["data"]) == (code, message, None)
        assert type(body["code"]) is int
        assert str(UUID(body["requestId"])) == body["requestId"]

    def invalid(self, field: str, status: int = 400) -> None:
        self.error(status, 99400, f"Invalid Argument {field}:{field} is missing")


class Client:
    """A device with an HTTP library."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def post(self, running: Running, path: str, body: Any, **headers: str) -> Reply:
        """`body` is sent as it is when it is bytes, else as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        url = f"http://127.0.0.1:{running.http.port}{path}"
        sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._session.post(url, data=data, headers=sent) as response:
            return Reply(response.status, await response.text(), response.content_type)

    async def bootstrap(self, running: Running, body: Any, **headers: str) -> Reply:
        return await self.post(running, "/dev/bootstrap", body, **headers)

    async def get_conn(self, running: Running, body: Any) -> Reply:
        return await self.post(running, "/dev/get/conn", body)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, skip_auto_headers={"Content-Type"}) as session:
        yield Client(session)


@pytest.fixture
async def running(service: Running) -> Running:
    await load_rows(service, PRODUCT, GROUP, WAITING, CLOSED, CLOCKLESS, OTHER, HOMELESS)
    return service


async def stored(running: Running, serial: str = "SN1", group: str = "g1") -> Device:
    async with running.database.read() as tx:
        return await registry.device_by_serial(tx, "enos", group, serial)


async def events(running: Running) -> list[str]:
    async with running.database.read() as tx:
        return [
            row["kind"] for row in await tx.db.fetch("SELECT kind FROM event WHERE kind LIKE 'device.%' ORDER BY id")
        ]


async def device_count(running: Running) -> int:
    async with running.database.read() as tx:
        count: int = await tx.db.fetchval("SELECT count(*) FROM device")
        return count


# --- success ---


async def test_bootstrap(running: Running, client: Client) -> None:
    triple = (await client.bootstrap(running, bootstrap_body())).triple()
    assert triple["murl"] == f"tcp://127.0.0.1:{running.mqtt.port}"
    assert triple["hurl"] == f"http://127.0.0.1:{running.http.port}"
    assert triple["pk"] == "pk1"
    assert re.fullmatch(r"[A-Za-z0-9]{10}", triple["dk"])
    assert re.fullmatch(r"[A-Za-z0-9_-]{32}", triple["ds"])
    device = await stored(running)
    assert (device.product, device.key, device.secret) == (triple["pk"], triple["dk"], triple["ds"])
    assert (device.state, device.name, device.timezone) == (State.ALLOCATED, "abc", "+08:00")
    async with raw(running.mqtt.port) as mqtt:
        connack = await mqtt.login(connect(login(triple["dk"], triple["ds"])))
        assert connack.code == 0


@pytest.mark.parametrize("segment", ["2.4.0", "dev", "preview", "2.4.4", "2.4", "10.20.30.40"])
async def test_served_paths(running: Running, client: Client, segment: str) -> None:
    triple = (await client.post(running, f"/{segment}/bootstrap", bootstrap_body())).triple()
    assert (await client.post(running, f"/{segment}/get/conn", {"self": get_conn_proof("SN1")})).triple() == triple


@pytest.mark.parametrize(
    "segment", ["foo", "v1", "2", "2.", ".4", "2.4.0.1.1", "2.4.x", "devs", "Dev", "2.4.0%0a", "%D9%A2.4", ""]
)
async def test_other_paths(running: Running, client: Client, segment: str) -> None:
    for operation in ("bootstrap", "get/conn"):
        reply = await client.post(running, f"/{segment}/{operation}", bootstrap_body())
        assert reply.status == 404
        assert "ds" not in reply.body
    assert await device_count(running) == 0


async def test_repeats_give_the_same_triple(running: Running, client: Client) -> None:
    """Name and time zone are applied at the first registration only."""
    first = (await client.bootstrap(running, bootstrap_body())).triple()
    again = bootstrap_body(deviceName="new name", timezone="Europe/Berlin", dpsSignMethod="SHA256")
    assert (await client.bootstrap(running, again)).triple() == first
    by_alias = bootstrap_body(deviceSn=None, deviceId="SN1")
    assert (await client.post(running, "/2.4.0/bootstrap", by_alias)).triple() == first
    device = await stored(running)
    assert (device.name, device.timezone) == ("abc", "+08:00")
    assert (await events(running)).count("device.registered") == 1


@pytest.mark.parametrize("count", [8, 50])
async def test_racing_bootstraps(running: Running, client: Client, count: int) -> None:
    replies = await asyncio.gather(*(client.bootstrap(running, bootstrap_body("RACE")) for _ in range(count)))
    triples = {tuple(sorted(reply.triple().items())) for reply in replies}
    assert len(triples) == 1
    assert await device_count(running) == 1
    assert await events(running) == ["device.registered"]


async def test_racing_bootstraps_of_a_waiting_device(running: Running, client: Client) -> None:
    """It is registered without a product; then its group begins to allocate, and eight requests come at once."""
    body = bootstrap_body(group="waiting", password="wp")
    (await client.bootstrap(running, body)).error(403, 10000, "[SN1] not allocated")
    await load_rows(running, WAITING | {"autoActivation": True})
    replies = await asyncio.gather(*(client.bootstrap(running, body) for _ in range(8)))
    assert len({reply.triple()["ds"] for reply in replies}) == 1
    assert await events(running) == ["device.registered", "device.allocated"]


async def test_racing_branches(running: Running, client: Client) -> None:
    await client.bootstrap(running, bootstrap_body("GW"))
    body = {"self": get_conn_proof("GW"), "sub": {"branch": 1}}
    replies = await asyncio.gather(*(client.get_conn(running, body) for _ in range(8)))
    assert len({reply.triple()["ds"] for reply in replies}) == 1
    assert (await events(running)).count("device.registered") == 2


# --- content ---


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", 'application/json;charset="UTF-8"', "Application/JSON"],
)
async def test_content_types(running: Running, client: Client, content_type: str) -> None:
    (await client.bootstrap(running, bootstrap_body(), Content_Type=content_type)).triple()


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "application/x-www-form-urlencoded", "json"])
async def test_wrong_content_type(running: Running, client: Client, content_type: str) -> None:
    reply = await client.bootstrap(running, bootstrap_body(), Content_Type=content_type)
    reply.invalid("Content-Type", 415)
    (await client.bootstrap(running, bootstrap_body(), Content_Encoding="gzip")).invalid("Content-Encoding", 415)
    assert await device_count(running) == 0


async def test_largest_body(running: Running, client: Client) -> None:
    body = json.dumps(bootstrap_body() | {"padding": ""}).encode()
    padded = body.replace(b'"padding": ""', b'"padding": "' + b"x" * (16_384 - len(body)) + b'"')
    assert len(padded) == 16_384
    (await client.bootstrap(running, padded)).triple()
    (await client.bootstrap(running, padded + b" ")).invalid("body", 413)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"a":1,"a":2}',
        b"{" * 9000,
        b"[" * 16_000,
        b'{"a":NaN}',
        b'{"a":"\\ud800"}',
        b'"x"',
    ],
)
async def test_bad_json(running: Running, client: Client, body: bytes) -> None:
    (await client.bootstrap(running, body)).invalid("body")
    (await client.get_conn(running, body)).invalid("body")


async def test_missing_fields_by_name(running: Running, client: Client) -> None:
    for field in ("deviceSn", "groupId", "dpsSignMethod", "dpsSignTimestamp", "dpsSign", "deviceName", "timezone"):
        (await client.bootstrap(running, bootstrap_body() | {field: None})).invalid(field)
    (await client.bootstrap(running, bootstrap_body(deviceId="SN2"))).invalid("deviceId")
    (await client.get_conn(running, {})).invalid("self")
    assert await device_count(running) == 0


# --- errors, and their order ---


async def test_order_of_checks(running: Running, client: Client, lines: Lines) -> None:
    """Content type, JSON, fields, group, signature, freshness, device, allocation: each hides what comes after it."""
    long_ago = now_ms() - 3_600_000
    (await client.bootstrap(running, b"{", Content_Type="text/plain")).invalid("Content-Type", 415)
    (await client.bootstrap(running, b"{")).invalid("body")
    (await client.bootstrap(running, bootstrap_body(group="none", timezone=None))).invalid("timezone")
    (await client.bootstrap(running, bootstrap_body(group="none", password="x", at=long_ago))).error(*NOT_FOUND)
    stale_and_wrong = bootstrap_body("NEW", group="closed", password="x", at=long_ago)
    (await client.bootstrap(running, stale_and_wrong)).error(*UNAUTHORIZED)
    (await client.bootstrap(running, bootstrap_body("NEW", group="closed", password="cp", at=long_ago))).error(
        *UNAUTHORIZED
    )
    (await client.bootstrap(running, bootstrap_body("NEW", group="closed", password="cp"))).error(*NOT_FOUND)
    waiting = bootstrap_body("NEW", group="waiting", password="wp")
    (await client.bootstrap(running, waiting)).error(403, 10000, "[NEW] not allocated")
    assert [line["reason"] for line in lines if line["event"] == "http.bootstrap"] == [
        "unsupported_media_type", "malformed", "malformed", "unknown", "not_proven", "stale", "unknown",
        "not_allocated",
    ]  # fmt: skip
    assert await events(running) == ["device.registered"]


async def test_errors_each_have_their_own_request_id(running: Running, client: Client) -> None:
    replies = [await client.bootstrap(running, b"{") for _ in range(2)]
    assert replies[0].body["requestId"] != replies[1].body["requestId"]


async def test_errors_with_status_200(serve: Serve, client: Client) -> None:
    running = await serve(enos={"error_http_status": "always200"})
    await load_rows(running, PRODUCT, GROUP, WAITING)
    (await client.bootstrap(running, b"{")).invalid("body", 200)
    (await client.bootstrap(running, b"{}", Content_Type="text/plain")).invalid("Content-Type", 200)
    (await client.bootstrap(running, bootstrap_body(group="none"))).error(200, *NOT_FOUND[1:])
    (await client.bootstrap(running, bootstrap_body(password="x"))).error(200, *UNAUTHORIZED[1:])
    waiting = bootstrap_body(group="waiting", password="wp")
    (await client.bootstrap(running, waiting)).error(200, 10000, "[SN1] not allocated")
    (await client.get_conn(running, {"self": get_conn_proof("none")})).error(200, *NOT_FOUND[1:])
    (await client.bootstrap(running, bootstrap_body())).triple()


async def test_signature(running: Running, client: Client) -> None:
    good = bootstrap_body()
    (await client.bootstrap(running, good | {"dpsSign": good["dpsSign"].upper()})).triple()
    flipped = good["dpsSign"][:-1] + ("0" if good["dpsSign"][-1] != "0" else "1")
    for wrong in ({"dpsSign": flipped}, {"deviceSn": "SN2"}, {"dpsSignTimestamp": good["dpsSignTimestamp"] + 1}):
        (await client.bootstrap(running, good | wrong)).error(*UNAUTHORIZED)
    (await client.bootstrap(running, bootstrap_body(password="op"))).error(*UNAUTHORIZED)  # another group's password


async def test_freshness(running: Running, client: Client) -> None:
    for seconds in (-890, 890):
        (await client.bootstrap(running, bootstrap_body(at=now_ms() + seconds * 1000))).triple()
    for seconds in (-910, 910):
        (await client.bootstrap(running, bootstrap_body(at=now_ms() + seconds * 1000))).error(*UNAUTHORIZED)
    for moment in (10**12, 10**13 - 1):
        (await client.bootstrap(running, bootstrap_body(group="clockless", password="kp", at=moment))).triple()
        (await client.get_conn(running, {"self": get_conn_proof("SN1", at=moment)})).error(*UNAUTHORIZED)


async def test_waiting_device_is_allocated_by_an_administrator(running: Running, client: Client) -> None:
    body = bootstrap_body(group="waiting", password="wp")
    for _ in range(2):
        (await client.bootstrap(running, body)).error(403, 10000, "[SN1] not allocated")
        (await client.get_conn(running, {"self": get_conn_proof("SN1", "wp")})).error(403, 10000, "[SN1] not allocated")
    device = await stored(running, group="waiting")
    assert (device.state, device.name, device.secret) == (State.REGISTERED, "abc", "")
    async with running.database.begin() as tx:
        device = await registry.allocate(tx, device, await registry.product(tx, "enos", "pk1"))
    triple = (await client.bootstrap(running, body)).triple()
    assert (triple["pk"], triple["dk"], triple["ds"]) == ("pk1", device.key, device.secret)
    assert (await client.get_conn(running, {"self": get_conn_proof("SN1", "wp")})).triple() == triple
    assert await events(running) == ["device.registered", "device.allocated"]


async def test_group_without_product_cannot_allocate(running: Running, client: Client) -> None:
    (await client.bootstrap(running, bootstrap_body(group="homeless", password="hp"))).error(
        403, 10000, "[SN1] not allocated"
    )


async def test_closed_group(running: Running, client: Client) -> None:
    """It knows the devices that an administrator has entered, and registers no others."""
    await load_rows(running, {"type": "device", "protocol": "enos", "groupId": "closed", "deviceSn": "KNOWN"})
    body = bootstrap_body("KNOWN", group="closed", password="cp")
    triple = (await client.bootstrap(running, body)).triple()
    assert triple["pk"] == "pk1"
    (await client.bootstrap(running, bootstrap_body("UNKNOWN", group="closed", password="cp"))).error(*NOT_FOUND)
    sub = {"self": get_conn_proof("KNOWN", "cp"), "sub": {"branch": 1}}
    (await client.get_conn(running, sub)).error(*NOT_FOUND)
    assert await device_count(running) == 1


async def test_reset_device_gets_a_new_secret(running: Running, client: Client) -> None:
    first = (await client.bootstrap(running, bootstrap_body())).triple()
    async with running.database.begin() as tx:
        await registry.reset(tx, await registry.device(tx, "enos", first["pk"], first["dk"]))
    second = (await client.bootstrap(running, bootstrap_body())).triple()
    assert (second["pk"], second["dk"]) == (first["pk"], first["dk"])
    assert second["ds"] != first["ds"]


async def test_database_away(serve: Serve, client: Client, away: Away, lines: Lines) -> None:
    running = await serve(database={"timeout": 1.0})
    await load_rows(running, PRODUCT, GROUP)
    async with away():
        (await client.bootstrap(running, bootstrap_body())).error(503, 99500, "Internal error")
        (await client.get_conn(running, {"self": get_conn_proof("SN1")})).error(503, 99500, "Internal error")
    assert [line["reason"] for line in lines if line["event"].startswith("http.")] == ["unavailable"] * 2
    assert not [line for line in lines if line.get("exc_info")]

    async def is_back() -> bool:
        return (await client.bootstrap(running, bootstrap_body())).status == 200

    await until(is_back, "a bootstrap after the database came back")


# --- get/conn ---


async def test_own_triple(running: Running, client: Client) -> None:
    triple = (await client.bootstrap(running, bootstrap_body())).triple()
    body = {"self": get_conn_proof("SN1"), "signMethod": "sha256", "unknown": 1}
    assert (await client.get_conn(running, body)).triple() == triple
    (await client.get_conn(running, {"self": get_conn_proof("SN2")})).error(*NOT_FOUND)
    (await client.get_conn(running, {"self": get_conn_proof("SN1", "wrong")})).error(*UNAUTHORIZED)
    (await client.get_conn(running, {"self": get_conn_proof("SN1", at=now_ms() - 910_000)})).error(*UNAUTHORIZED)


async def test_branch(running: Running, client: Client) -> None:
    gateway = (await client.bootstrap(running, bootstrap_body("GW"))).triple()
    body = {"self": get_conn_proof("GW"), "sub": {"branch": 7, "createSubSnFromGw": True}}
    triple = (await client.get_conn(running, body)).triple()
    assert triple["dk"] != gateway["dk"]
    assert (await client.get_conn(running, body)).triple() == triple
    device = await stored(running, "GW-7")
    assert (device.group, device.key, device.secret) == ("g1", triple["dk"], triple["ds"])
    assert (await client.get_conn(running, {"self": get_conn_proof("GW-7")})).triple() == triple
    wrong = {"self": get_conn_proof("GW", "wrong"), "sub": {"branch": 8}}
    (await client.get_conn(running, wrong)).error(*UNAUTHORIZED)
    (await client.get_conn(running, {"self": get_conn_proof("NONE"), "sub": {"branch": 8}})).error(*NOT_FOUND)
    assert await device_count(running) == 2


async def test_branch_waits_for_an_administrator(running: Running, client: Client) -> None:
    """First the gateway, then each device behind it."""
    await client.bootstrap(running, bootstrap_body("GW", group="waiting", password="wp"))
    body = {"self": get_conn_proof("GW", "wp"), "sub": {"branch": 1}}
    (await client.get_conn(running, body)).error(403, 10000, "[GW] not allocated")
    assert await device_count(running) == 1, "a gateway that waits brings nobody along"
    async with running.database.begin() as tx:
        gateway = await registry.device_by_serial(tx, "enos", "waiting", "GW")
        await registry.allocate(tx, gateway, await registry.product(tx, "enos", "pk1"))
    (await client.get_conn(running, body)).error(403, 10000, "[GW-1] not allocated")
    assert (await stored(running, "GW-1", "waiting")).state is State.REGISTERED


async def test_disabled_gateway_brings_nobody_along(running: Running, client: Client) -> None:
    await client.bootstrap(running, bootstrap_body("GW"))
    async with running.database.begin() as tx:
        await registry.disable(tx, await registry.device_by_serial(tx, "enos", "g1", "GW"))
    body = {"self": get_conn_proof("GW"), "sub": {"branch": 1}}
    (await client.get_conn(running, body)).error(*UNAUTHORIZED)
    assert await device_count(running) == 1


async def test_sub_device_proves_itself_with_its_own_groups_password(running: Running, client: Client) -> None:
    await client.bootstrap(running, bootstrap_body("GW"))
    sub = (await client.bootstrap(running, bootstrap_body("SUB", group="other", password="op"))).triple()
    gateway = get_conn_proof("GW")
    assert (await client.get_conn(running, {"self": gateway, "sub": get_conn_proof("SUB", "op")})).triple() == sub
    (await client.get_conn(running, {"self": gateway, "sub": get_conn_proof("SUB", "gp1")})).error(*UNAUTHORIZED)
    (await client.get_conn(running, {"self": gateway, "sub": get_conn_proof("NONE", "op")})).error(*NOT_FOUND)
    not_the_gateway = {"self": get_conn_proof("GW", "wrong"), "sub": get_conn_proof("SUB", "op")}
    (await client.get_conn(running, not_the_gateway)).error(*UNAUTHORIZED)
    await client.bootstrap(running, bootstrap_body("NEW", group="waiting", password="wp"))
    waiting = {"self": gateway, "sub": get_conn_proof("NEW", "wp")}
    (await client.get_conn(running, waiting)).error(403, 10000, "[NEW] not allocated")


async def test_one_serial_in_two_groups(running: Running, client: Client) -> None:
    """It is unique in its group only; the password tells which is meant."""
    here = (await client.bootstrap(running, bootstrap_body("SAME"))).triple()
    there = (await client.bootstrap(running, bootstrap_body("SAME", group="other", password="op"))).triple()
    assert here["dk"] != there["dk"]
    assert (await client.get_conn(running, {"self": get_conn_proof("SAME", "gp1")})).triple() == here
    assert (await client.get_conn(running, {"self": get_conn_proof("SAME", "op")})).triple() == there
    (await client.get_conn(running, {"self": get_conn_proof("SAME", "third")})).error(*UNAUTHORIZED)


# --- addresses ---


async def test_endpoints_of_the_settings(serve: Serve, client: Client) -> None:
    running = await serve(endpoints={"murl": "ssl://mqtt.example.org:18883", "hurl": "https://iot-http.example.org"})
    await load_rows(running, PRODUCT, GROUP)
    triple = (await client.bootstrap(running, bootstrap_body(), Host="elsewhere")).triple()
    assert (triple["murl"], triple["hurl"]) == ("ssl://mqtt.example.org:18883", "https://iot-http.example.org")


async def test_wildcard_address_is_the_one_that_the_device_asked_by(serve: Serve, client: Client) -> None:
    running = await serve(mqtt={"host": "0.0.0.0"}, http={"host": "0.0.0.0"})
    await load_rows(running, PRODUCT, GROUP)
    port, http = running.mqtt.port, running.http.port
    for host, told in (
        ("gate.example.org", "gate.example.org"),
        ("gate:99", "gate"),
        ("[2001:db8::1]:99", "[2001:db8::1]"),
    ):
        triple = (await client.bootstrap(running, bootstrap_body(), Host=host)).triple()
        assert (triple["murl"], triple["hurl"]) == (f"tcp://{told}:{port}", f"http://{told}:{http}")
    for host in ("evil/path", "a b", "u@h", "h:1:2", "[::1", "::1", "tcp://h", "%0d", "?", "#", '"'):
        reply = await client.bootstrap(running, bootstrap_body(), Host=host)
        if reply.status != 400:  # the parser itself does not take every one of them
            assert reply.triple()["murl"] == f"tcp://127.0.0.1:{port}", f"made of Host: {host}"


# --- the log ---


async def test_one_line_for_each_request(running: Running, client: Client, lines: Lines) -> None:
    body, wrong = bootstrap_body(), bootstrap_body(password="wrong")
    proof = get_conn_proof("SN1")
    triple = (await client.bootstrap(running, body)).triple()
    await client.bootstrap(running, wrong)
    await client.get_conn(running, {"self": proof})
    await client.post(running, "/2.4.0/bootstrap", b"{")
    seen = [line for line in lines if line["event"].startswith("http.")]
    assert [(line["event"], line["outcome"], line["reason"], line["status"]) for line in seen] == [
        ("http.bootstrap", "accepted", "", 200),
        ("http.bootstrap", "refused", "not_proven", 401),
        ("http.get_conn", "accepted", "", 200),
        ("http.bootstrap", "refused", "malformed", 400),
    ]
    first = seen[0]
    assert (first["protocol"], first["group"], first["serial"]) == ("enos", "g1", "SN1")
    assert (first["product"], first["device"]) == ("pk1", triple["dk"])
    assert first["peer"].startswith("127.0.0.1:")
    assert first["ms"] > 0
    assert [line["event"] for line in lines if line["event"] == "device.registered"] == ["device.registered"]
    whole = json.dumps(lines, default=str)
    for secret in (body["dpsSign"], wrong["dpsSign"], proof["sign"], triple["ds"], "gp1", "ps1"):
        assert secret not in whole
