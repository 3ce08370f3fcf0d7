"""Registration through a service: what devices see, byte for byte where it matters."""

import asyncio
import hmac
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from provisioning.app import Running
from provisioning.core import registry
from provisioning.model.identity import Identity
from provisioning.model.registry import Device
from provisioning.store import devices, logins, registrations
from tests.conftest import Serve, load_rows
from tests.provisioning.protocols.conftest import Away, Lines
from tests.registrants import (
    NO_LIMITS,
    PRODUCT,
    PRODUCT_ID,
    PRODUCT_SECRET,
    Registrant,
    Reply,
    body_of,
    now,
    signed,
)

pytestmark = pytest.mark.server

OFF = PRODUCT | {"productId": "OFF", "registerType": 0}
LISTED = PRODUCT | {"productId": "LISTED", "registerType": 1}
LIMITED = PRODUCT | {"productId": "LIMITED", "registerLimit": 3}
CERTIFIED = PRODUCT | {"productId": "CERTIFIED", "encryptionType": 1}
PRODUCTS = (PRODUCT, OFF, LISTED, LIMITED, CERTIFIED)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def started(serve: Serve, **settings: Any) -> Running:
    running = await serve(tencent=NO_LIMITS | settings)
    await load_rows(running, *PRODUCTS)
    return running


@pytest.fixture
async def running(serve: Serve) -> Running:
    return await started(serve)


@pytest.fixture
def client(session: aiohttp.ClientSession, running: Running) -> Registrant:
    return Registrant(session, running)


async def find(running: Running, key: str = "dev1", product: str = PRODUCT_ID) -> Device:
    async with running.database.read() as tx:
        return await registry.device(tx, "tencent", product, key)


async def connect(running: Running, key: str = "dev1", product: str = PRODUCT_ID) -> None:
    """The device logs in for the first time."""
    device = await find(running, key, product)
    async with running.database.begin() as tx:
        await logins.activate(tx, [device.id])


async def count(running: Running, product: str) -> int:
    async with running.database.read() as tx:
        return await registrations.devices_of(tx, (await registry.product(tx, "tencent", product)).id)


# --- success ---


async def test_a_device_registers_and_gets_its_psk(client: Registrant, running: Running) -> None:
    reply = await client.register()
    psk = reply.psk()
    assert reply.body["Response"]["Len"] == 53
    assert str(UUID(reply.body["Response"]["RequestId"])) == reply.body["Response"]["RequestId"]
    device = await find(running)
    assert (device.secret, device.self_registered, str(device.state)) == (psk, True, "allocated")


async def test_a_lost_answer_is_given_again_by_either_path(client: Registrant) -> None:
    psk = (await client.register()).psk()
    assert (await client.register()).psk() == psk
    assert (await client.register_legacy()).psk() == psk


async def test_one_that_was_made_by_hand_gets_its_own(client: Registrant, running: Running) -> None:
    psk = "lDZ6Uqt+I9E0wW7rvDUs7Q=="
    await load_rows(
        running, {"type": "device", "protocol": "tencent", "productId": "LISTED", "deviceName": "known", "psk": psk}
    )
    assert (await client.register("known", "LISTED")).psk() == psk
    assert not (await find(running, "known", "LISTED")).self_registered


@pytest.mark.parametrize("how", [
    {"algorithm": "hmacsha1"}, {"algorithm": "hmacsha1", "body_hash": "sha256"}, {"algorithm": "HmacSha256"},
    {"host": "127.0.0.1"}, {"host": "gateway.tencentdevices.com"}, {"host": "old.example.net"},
])  # fmt: skip
async def test_what_clients_sign(serve: Serve, session: aiohttp.ClientSession, how: dict[str, Any]) -> None:
    running = await started(serve, host_aliases=["old.example.net"])
    (await Registrant(session, running).register(**how)).psk()


async def test_the_host_with_its_port_and_the_query_that_is_not_signed(client: Registrant, running: Running) -> None:
    (await client.register(host=f"127.0.0.1:{running.http.port}")).psk()
    body = body_of("dev2")
    assert (await client.post("/device/register?a=b", body, signed(body))).code == 0


async def test_header_names_in_any_case(client: Registrant) -> None:
    body = body_of()
    headers = {name.upper(): value for name, value in signed(body).items()}
    (await client.post("/device/register", body, headers)).psk()


async def test_the_answer_for_old_firmware(client: Registrant) -> None:
    reply = await client.register_legacy()
    reply.psk()
    assert re.fullmatch(r'\{"code":0,"message":"","len":53,"payload":"[A-Za-z0-9+/]{86}=="\}', reply.text)


# --- refusals ---


def error(reply: Reply, code: int, words: str, status: int = 200) -> None:
    assert reply.status == status
    body = reply.body
    assert (body["code"], body["message"]) == (code, words), reply.text
    if "Response" in body:
        assert body["Response"]["Error"]["Message"] == words
        assert body["Response"]["Len"] == 0
    else:
        assert body["len"] == 0
    assert "ayload" not in reply.text


async def test_fields_come_first(client: Registrant) -> None:
    body = body_of(product="NOSUCH")
    headers = signed(body, secret="wrong")
    for name in ("X-TC-Algorithm", "X-TC-Timestamp", "X-TC-Nonce", "X-TC-Signature"):
        less = {key: value for key, value in headers.items() if key != name}
        error(await client.post("/device/register", body, less), 1001, f"{name} is missing")
    error(await client.post("/device/register", b"{}", headers), 1001, "ProductId is missing")
    error(await client.post("/device/register", b"{", headers), 1001, "body is missing")
    error(await client.post("/device/register", body, headers | {"X-TC-Nonce": "x"}), 1002, "X-TC-Nonce is invalid")
    error(await client.post("/register/dev", b"{}", {}), 1001, "productId is missing")
    error(await client.post("/register/dev", b"[" * 10_000, {}), 1001, "body is missing")


async def test_an_unknown_product_is_a_wrong_signature(client: Registrant) -> None:
    wrong = await client.register(secret="wrong secret, quite")
    unknown = await client.register(product="NOSUCH")
    error(wrong, 1010, "Check signature failed")
    assert wrong.without_id() == unknown.without_id()
    assert (await client.register_legacy("d", "NOSUCH")).text == (
        await client.register_legacy("d", PRODUCT_ID, "wrong secret, quite")
    ).text


async def test_an_unknown_product_costs_what_a_wrong_signature_costs(
    client: Registrant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same HMACs and the same queries; a clock would tell the weather of the machine."""
    digests: list[str] = []
    digest = hmac.digest

    def counted(key: bytes, text: bytes, name: str) -> bytes:
        digests.append(name)
        return digest(key, text, name)

    monkeypatch.setattr(hmac, "digest", counted)
    nonce, at = 7, now()
    await client.register(secret="wrong secret, quite", nonce=nonce, timestamp=at)
    wrong = digests.copy()
    digests.clear()
    await client.register(product="NOSUCHPROD", nonce=nonce, timestamp=at)
    server = len(wrong) - len(digests)
    assert wrong, "nothing was computed"
    assert server == 0


async def test_hiding_can_be_switched_off(serve: Serve, session: aiohttp.ClientSession) -> None:
    client = Registrant(session, await started(serve, hide_unknown_product=False))
    error(await client.register(product="NOSUCH", secret="wrong"), 1003, "Product does not exist")
    error(await client.register(secret="wrong"), 1010, "Check signature failed")


async def test_freshness(client: Registrant) -> None:
    error(await client.register(timestamp=now() - 400), 1011, "Signature expired")
    error(await client.register(timestamp=now() + 400), 1011, "Signature expired")
    error(await client.register(timestamp=now() - 400, secret="wrong"), 1010, "Check signature failed")
    error(await client.register("d", "OFF", timestamp=now() - 400), 1011, "Signature expired")
    error(await client.register_legacy(timestamp=now() - 400), 1011, "Signature expired")
    (await client.register(timestamp=now() - 200)).psk()


async def test_devices_without_a_clock(serve: Serve, session: aiohttp.ClientSession) -> None:
    client = Registrant(session, await started(serve, freshness=0))
    (await client.register(timestamp=0)).psk()


async def test_switches_and_states(client: Registrant, running: Running) -> None:
    error(await client.register("d", "OFF"), 1004, "Dynamic registration is not enabled")
    error(await client.register("d", "LISTED"), 1005, "Device does not exist")
    error(await client.register_legacy("d", "LISTED"), 1005, "Device does not exist")
    (await client.register()).psk()
    async with running.database.begin() as tx:
        await registry.disable(tx, await find(running))
    error(await client.register(), 1008, "Device is disabled")


async def test_what_contradicts_the_product(client: Registrant) -> None:
    error(await client.register(more={"EncryptionType": 1}), 1002, "EncryptionType is invalid")
    error(await client.register(more={"ClientCert": "PEM"}), 1002, "ClientCert is invalid")
    error(await client.register("d", "CERTIFIED", more={"EncryptionType": 2}), 1002, "EncryptionType is invalid")
    error(await client.register_legacy("d", "CERTIFIED"), 1002, "productId is invalid")
    (await client.register(more={"EncryptionType": 2})).psk()


@pytest.mark.parametrize("policy", ["deny", "same", "rotate"])
async def test_one_that_has_connected(serve: Serve, session: aiohttp.ClientSession, policy: str) -> None:
    running = await started(serve, reregister=policy)
    client = Registrant(session, running)
    psk = (await client.register()).psk()
    await connect(running)
    again = await client.register()
    if policy == "deny":
        error(again, 1007, "Device already activated")
    else:
        assert (again.psk() == psk) is (policy == "same")
        assert (await find(running)).secret == again.psk()


@pytest.mark.parametrize("policy", ["deny", "rotate"])
async def test_a_repetition_is_refused_once_the_device_has_connected(
    serve: Serve, session: aiohttp.ClientSession, policy: str
) -> None:
    running = await started(serve, reregister=policy)
    client = Registrant(session, running)
    once: dict[str, Any] = {"nonce": 5456, "timestamp": now()}
    psk = (await client.register(**once)).psk()
    assert (await client.register(**once)).psk() == psk, "an answer may be lost"
    await connect(running)
    error(await client.register(**once), 1010, "Check signature failed")
    error(await client.register_legacy(**once), 1010, "Check signature failed")
    assert (await find(running)).secret == psk
    other = await client.register(nonce=5457)
    assert other.code == (1007 if policy == "deny" else 0)


async def test_the_limit_under_a_race_of_fifty(client: Registrant, running: Running) -> None:
    replies = await asyncio.gather(*(client.register(f"d{n}", "LIMITED") for n in range(50)))
    assert Counter(reply.code for reply in replies) == {0: 3, 1006: 47}
    assert await count(running, "LIMITED") == 3
    async with running.database.read() as tx:
        there = {each.key: each for each in await devices.page(tx, devices.Filter(product="LIMITED"), 0, 99)}
    won = {f"d{n}": reply for n, reply in enumerate(replies) if reply.code == 0}
    assert set(there) == set(won)
    assert all(there[name].secret == reply.psk() for name, reply in won.items())
    error(await client.register("late", "LIMITED"), 1006, "Registration limit reached")
    async with running.database.begin() as tx:
        await registry.delete_device(tx, there[min(there)])
    (await client.register("late", "LIMITED")).psk()


async def test_errors_with_a_status_of_their_own(serve: Serve, session: aiohttp.ClientSession, away: Away) -> None:
    running = await started(serve, error_http_status="rest")
    client = Registrant(session, running)
    error(await client.register(secret="wrong"), 1010, "Check signature failed", 401)
    error(await client.register("d", "OFF"), 1004, "Dynamic registration is not enabled", 403)
    error(await client.register_legacy("d", "LISTED"), 1005, "Device does not exist", 404)
    async with away():
        error(await client.register(), 1500, "Internal error", 503)


# --- rates ---


async def test_so_many_from_one_address(serve: Serve, session: aiohttp.ClientSession) -> None:
    running = await serve(tencent={"rate_per_address": 3, "rate_per_product": 0})
    await load_rows(running, PRODUCT)
    client = Registrant(session, running)
    replies = [await client.register(), await client.register_legacy()]
    replies += await asyncio.gather(*(client.register() for _ in range(20)))
    codes = Counter(reply.code for reply in replies)
    assert set(codes) == {0, 1009}
    assert codes[0] >= 3
    error(next(reply for reply in replies if reply.code), 1009, "Too many requests")


async def test_so_many_of_one_product_and_only_proven_ones_count(serve: Serve, session: aiohttp.ClientSession) -> None:
    running = await serve(tencent={"rate_per_address": 0, "rate_per_product": 3})
    await load_rows(running, PRODUCT, LIMITED)
    client = Registrant(session, running)
    wrong = await asyncio.gather(*(client.register(secret="wrong") for _ in range(20)))
    assert {reply.code for reply in wrong} == {1010}
    replies = await asyncio.gather(*(client.register() for _ in range(20)))
    codes = Counter(reply.code for reply in replies)
    assert set(codes) == {0, 1009}
    assert codes[0] >= 3
    assert (await client.register("d", "LIMITED")).code == 0


# --- bad input ---


@pytest.mark.parametrize("path", ["/device/register", "/register/dev"])
@pytest.mark.parametrize("size", [16_385, 2**20 + 1])
async def test_a_large_body_is_refused(client: Registrant, path: str, size: int) -> None:
    body = b'{"ProductId":"' + b"x" * size + b'"}'
    error(await client.post(path, body, signed(body)), 1002, "body is invalid")


@pytest.mark.parametrize("path", ["/device/register", "/register/dev"])
@pytest.mark.parametrize(
    "body", [b"\xff\xfe", b"\x00", b"[" * 10_000, b'{"a":' * 3_000, b'"', b"1e999", b'{"ProductId":"\\ud800"}']
)
async def test_a_body_of_any_bytes_gets_an_answer(client: Registrant, path: str, body: bytes) -> None:
    assert (await client.post(path, body, signed(body))).code in {1001, 1002}


async def test_a_header_twice(client: Registrant) -> None:
    body = body_of()
    error(
        await client.post("/device/register", body, [*signed(body).items(), ("X-TC-Nonce", "5")]),
        1002, "X-TC-Nonce is invalid",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["Host", "X-TC-Signature", "X-TC-Algorithm", "X-TC-Timestamp", "Content-Type"])
async def test_a_header_of_any_bytes(running: Running, name: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.http.port)
    body = body_of()
    headers = {"Host": "x", "Content-Length": str(len(body)), "Connection": "close"} | signed(body, secret="wrong")
    lines = [b"POST /device/register HTTP/1.1"]
    lines += [f"{key}: ".encode() + (b"\xff\xe4" if key == name else value.encode()) for key, value in headers.items()]
    writer.write(b"\r\n".join([*lines, b"", body]))
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, text = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400")), answer
    if head.startswith(b"HTTP/1.1 200"):
        assert json.loads(text)["code"] in {1002, 1010}


async def test_the_database_is_away_and_comes_back(client: Registrant, away: Away) -> None:
    async with away():
        error(await client.register(), 1500, "Internal error")
        error(await client.register_legacy(), 1500, "Internal error")
    (await client.register()).psk()


# --- what operators see ---


async def test_one_line_for_each_request(client: Registrant, lines: Lines) -> None:
    psk = (await client.register()).psk()
    await client.register("d", "OFF")
    await client.register(secret="wrong secret, quite")
    await client.register_legacy()
    told = [line for line in lines if line["event"].startswith("http.")]
    assert [(line["event"], line["product"], line["device"], line["outcome"], line["reason"]) for line in told] == [
        ("http.register", PRODUCT_ID, "dev1", "accepted", ""),
        ("http.register", "OFF", "d", "refused", "activation_off"),
        ("http.register", PRODUCT_ID, "dev1", "refused", "not_proven"),
        ("http.register_dev", PRODUCT_ID, "dev1", "accepted", ""),
    ]
    assert {line["protocol"] for line in told} == {"tencent"}
    assert told[0]["request_id"]
    text = json.dumps(lines, default=str)
    assert psk not in text
    assert PRODUCT_SECRET not in text
    assert not re.search(r"[A-Za-z0-9+/]{43}=", text), "a signature is in the log"


async def test_a_registered_device_is_known_to_logins(client: Registrant, running: Running) -> None:
    """Also where it was looked up in vain a moment ago."""
    identity = Identity("tencent", PRODUCT_ID, "dev1")
    assert (await running.credentials.look_up(identity)).device is None
    psk = (await client.register()).psk()
    found = (await running.credentials.look_up(identity)).device
    assert found is not None
    assert found.secret == psk
