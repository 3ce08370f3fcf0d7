"""What agents see, through a service: registration, tokens, certificates, credentials, and the words of refusals."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from aiohttp import web
from asyncpg import PostgresError
from asyncpg.connection import Connection
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from provisioning.app import Running
from provisioning.core import claims, inventory, links, registry, tokens, updates
from provisioning.credentials import Credentials
from provisioning.model.certificate import Certificate, Status
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Product
from provisioning.model.update import Update
from provisioning.protocols.ioto import http, wire
from provisioning.sections import Ioto
from provisioning.store import certificates, products
from provisioning.store import claims as store
from provisioning.web.operation import METRICS, REQUEST_TIMEOUT
from provisioning.web.world import WORLD, Endpoints, World
from tests.conftest import Serve, load_rows
from tests.provisioning.protocols.ioto.conftest import (
    API,
    DEVICE,
    OTHER_PRODUCT,
    OTHER_TOKEN,
    PRODUCT,
    TOKEN,
    Agent,
    Lines,
    Reply,
    kinds,
)
from tests.provisioning.store.registry import execute, locked_out

pytestmark = pytest.mark.server

DEVICE_CALLS = [*http.CHECKIN, *http.REPORT, *http.GET_CERTS, *http.GET_CREDS]
CHECKSUM = "41bb20919c5d1d1eb2299079216a300c0fcbf4c5e2ebf0e418ea15919f07fe7f"
NO_TOKENS = [None, "", "bearer", "bearer ", "unknown", "bearer unknown", "x" * 1000, "a b"]


def both(paths: Iterable[str]) -> list[str]:
    """As they are, and as agents with a token send them."""
    return [f"{prefix}{path}" for path in paths for prefix in ("", "/tok")]


async def live(running: Running) -> list[Certificate]:
    """The device's certificates that are not revoked, oldest first."""
    async with running.database.read() as tx:
        device = await claims.device(tx, wire.PROTOCOL, DEVICE)
        return [each for each in await certificates.of_device(tx, device.id) if each.status is not Status.REVOKED]


async def release(running: Running, device: str = DEVICE) -> None:
    async with running.database.begin() as tx:
        await claims.release(tx, await claims.device(tx, wire.PROTOCOL, device), now=datetime.now(UTC))


# --- register ---


async def test_an_unclaimed_device_gets_exactly_one_node(agent: Agent, running: Running) -> None:
    for _ in range(3):
        assert (await agent.register()).text == '{"registered":true}'
    assert await kinds(running) == ["device.registered"]
    async with running.database.read() as tx:
        device = await claims.device(tx, wire.PROTOCOL, DEVICE)
        told = (await store.told(tx, [device.id]))[device.id]
        kept = repr(await tx.db.fetch("SELECT * FROM description"))
    assert (device.product, device.name) == (wire.product_key(TOKEN), "Dev")
    assert told.body["model"] == "m1", "what nobody knows is kept"
    assert TOKEN not in kept, "but secrets are not"


async def test_paths_and_forms_of_the_product_token(agent: Agent) -> None:
    for path in http.BUILDER:
        for form in ("bearer {}", "Bearer {}", "BEARER  {}", "{}", "  {} "):
            assert (await agent.post(path, {"id": DEVICE}, form.format(TOKEN))).body == {"registered": True}


async def test_a_claimed_device_gets_its_token(agent: Agent, running: Running) -> None:
    reply = (await agent.register(account="ACC1", cloud="west")).body
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", reply.pop("token"))
    assert list(reply) == ["registered", "api", "id", "cloudType", "cloudName", "cloudRegion"]
    assert reply == {
        "registered": True, "api": API, "id": DEVICE, "cloudType": "hosted", "cloudName": "west",
        "cloudRegion": "local",
    }  # fmt: skip
    assert await kinds(running) == ["device.registered", "device.claimed", "device.token_issued"]


async def test_a_claim_stands_whatever_the_device_states_later(agent: Agent) -> None:
    await agent.register(account="ACC1", cloud="west")
    assert (await agent.register(account="ACC2", cloud="east")).body["cloudName"] == "west"
    assert (await agent.register()).body["cloudName"] == "west"


async def test_account_without_cloud_claims_nothing(agent: Agent) -> None:
    assert (await agent.register(account="ACC1")).body == {"registered": True}
    assert (await agent.register(cloud="main")).body == {"registered": True}


async def test_claims_by_devices_may_be_off(agent: Agent, serve: Serve) -> None:
    agent.running = await serve(ioto={"auto_claim": False})
    assert (await agent.register(account="ACC1", cloud="main")).body == {"registered": True}


async def test_without_the_token_of_a_product(agent: Agent) -> None:
    for token in (*NO_TOKENS, OTHER_TOKEN + "x"):
        (await agent.post("/api/device/register", {"id": DEVICE}, token)).refused(403, "Invalid product token")


async def test_the_key_of_a_product_and_the_token_of_a_device_prove_nothing(agent: Agent) -> None:
    for token in (wire.product_key(TOKEN), await agent.claimed()):
        (await agent.post("/api/device/register", {"id": DEVICE}, token)).refused(403, "Invalid product token")


NO_REGISTRATIONS: list[tuple[Any, str]] = [
    (b"", "Missing device id"),
    ({}, "Missing device id"),
    ({"id": ""}, "Missing device id"),
    ({"id": "x" * 65}, "Invalid device id"),
    ({"id": "a/b"}, "Invalid device id"),
    ({"id": "#"}, "Invalid device id"),
    ({"id": 7}, "Invalid device id"),
    ({"id": [DEVICE]}, "Invalid device id"),
    ({"id": DEVICE, "product": OTHER_TOKEN}, "Product does not match the token"),
    ({"id": DEVICE, "product": []}, "Product does not match the token"),
    ({"id": DEVICE, "account": "a/#", "cloud": "main"}, "Invalid account"),
    ({"id": DEVICE, "account": "ACC1", "cloud": {"a": 1}}, "Invalid cloud"),
    ([], "Invalid request body"),
    (b"{", "Invalid request"),
    (b'{"id":1,"id":2}', "Invalid request"),
    (b" " * (http.LARGEST_BODY + 1), "Request too large"),
]


async def test_a_key_alone_leads_to_no_product(agent: Agent, running: Running) -> None:
    """Should two tokens ever have one key, the token itself decides."""
    async with running.database.begin() as tx:
        await products.add(tx, Product(protocol="ioto", key=wire.key_of_bearer("T1"), secret="T2"))
    (await agent.register(token="T1")).refused(403, "Invalid product token")


async def test_bodies_that_will_not_do(agent: Agent, running: Running) -> None:
    for body, text in NO_REGISTRATIONS:
        (await agent.post("/api/device/register", body, TOKEN)).refused(400, text)
    assert await kinds(running) == []


async def test_a_device_of_another_product(agent: Agent) -> None:
    await agent.register()
    (await agent.register(token=OTHER_TOKEN)).refused(400, "Device belongs to another product")


async def test_many_requests_at_once_register_one_device(agent: Agent, running: Running) -> None:
    replies = await asyncio.gather(*(agent.register(account="ACC1", cloud="main") for _ in range(40)))
    assert all(reply.body["registered"] for reply in replies)
    assert (await kinds(running)).count("device.registered") == 1
    assert (await kinds(running)).count("device.claimed") == 1


async def test_old_and_new_token_are_good_until_the_new_one_is_used(agent: Agent, running: Running) -> None:
    first = await agent.claimed()
    assert (await agent.checkin(first)).status == 200
    second = (await agent.register()).body["token"]
    assert (await agent.checkin(first)).status == 200, "nobody has used the second one"
    assert (await agent.checkin(second)).status == 200
    (await agent.checkin(first)).refused(403, "Authentication failed")
    assert (await kinds(running))[-1] == "device.reregistered", "an audit sees it"


async def test_who_asks_again_and_again_waits_and_keeps_what_it_has(agent: Agent, running: Running) -> None:
    used = await agent.claimed()
    await agent.checkin(used)
    unused = [(await agent.register()).body["token"] for _ in range(tokens.MOST_UNUSED)]
    for _ in range(3):
        assert (await agent.register()).body == {"registered": True}
    assert (await kinds(running)).count("device.reregistered") == tokens.MOST_UNUSED
    assert (await agent.checkin(used)).status == 200
    assert (await agent.checkin(unused[0])).status == 200
    assert (await agent.checkin(unused[-1])).status == 200
    assert "token" in (await agent.register()).body


async def test_another_token_may_need_an_administrator(agent: Agent, serve: Serve) -> None:
    agent.running = running = await serve(ioto={"reregister": "ask"})
    first = await agent.claimed()
    again = (await agent.register()).body["token"]
    assert again != first, "the first answer may have been lost: no token was used"
    await agent.checkin(again)
    for _ in range(2):
        assert (await agent.register()).body == {"registered": True}
    assert (await kinds(running)).count("device.reregistration_asked") == 1
    async with running.database.begin() as tx:
        await claims.confirm(tx, await claims.device(tx, wire.PROTOCOL, DEVICE), now=datetime.now(UTC))
    assert "token" in (await agent.register()).body
    assert (await agent.checkin(again)).status == 200


async def test_without_a_setting_the_api_is_where_the_device_asked(agent: Agent, serve: Serve) -> None:
    agent.running = running = await serve()
    assert (await agent.register(account="A", cloud="c")).body["api"] == f"http://127.0.0.1:{running.http.port}"


# --- the words that make agents erase their certificates ---


async def test_what_is_no_device_token_is_denied_and_erases_nothing(agent: Agent) -> None:
    for path in both(DEVICE_CALLS):
        for token in (*NO_TOKENS, TOKEN):
            (await agent.post(path, {"id": DEVICE}, token)).refused(403, "Access denied")


async def test_after_a_release(agent: Agent, running: Running) -> None:
    token = await agent.claimed()
    await release(running)
    for path in http.CHECKIN:
        (await agent.post(path, {}, token)).refused(403, "Authentication failed")
    for path in (*http.GET_CERTS, *http.GET_CREDS, *http.REPORT):
        (await agent.post(path, {"id": DEVICE}, token)).refused(400, "Device not claimed")
    assert (await agent.register()).body == {"registered": True}
    assert (await agent.register(account="ACC2", cloud="main")).body["token"] != token
    (await agent.checkin(token)).refused(403, "Authentication failed")


async def test_after_a_deletion(agent: Agent, running: Running) -> None:
    token = await agent.claimed()
    async with running.database.begin() as tx:
        await registry.delete_device(tx, await claims.device(tx, wire.PROTOCOL, DEVICE))
    for path in http.CHECKIN:
        (await agent.post(path, {}, token)).refused(400, "Cannot find device")
    for path in (*http.GET_CERTS, *http.GET_CREDS, *http.REPORT):
        (await agent.post(path, {"id": DEVICE}, token)).refused(403, "Access denied")


async def test_after_the_deletion_of_everything(agent: Agent, running: Running) -> None:
    token = await agent.claimed()
    async with running.database.begin() as tx:
        await registry.delete_product(tx, await registry.product(tx, "ioto", wire.product_key(TOKEN)), cascade=True)
    (await agent.checkin(token)).refused(400, "Cannot find device")


async def test_a_good_token_without_a_claim_is_a_released_device(agent: Agent, running: Running) -> None:
    token = await agent.claimed()
    await execute(running.database, "DELETE FROM claim")
    (await agent.checkin(token)).refused(400, "Cannot find device")
    (await agent.get_certs(token)).refused(400, "Device not claimed")


async def test_a_database_that_is_away_erases_nothing(
    agent: Agent, postgres: str, database_url: str, running: Running
) -> None:
    token = await agent.claimed()
    await release(running)  # even where the words would be right
    async with locked_out(postgres, database_url):
        for path in DEVICE_CALLS:
            for shown in (token, "unknown"):
                (await agent.post(path, {"id": DEVICE}, shown)).refused(500, "Internal error")
        (await agent.register()).refused(500, "Internal error")


@pytest.mark.parametrize("broken", ["ALTER TABLE token RENAME TO gone", "ALTER TABLE description RENAME TO gone"])
async def test_a_mistake_of_ours_erases_nothing(agent: Agent, running: Running, broken: str) -> None:
    token = await agent.claimed()
    await execute(running.database, broken)
    (await agent.checkin(token)).refused(500, "Internal error")


class Cut:
    """Ends the database's connection before the n-th statement from now on, whoever sends it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        self._execute = Connection.execute
        for name in ("execute", "fetch", "fetchrow", "fetchval"):
            monkeypatch.setattr(Connection, name, self._cutting(getattr(Connection, name)))

    def _cutting(self, send: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def cut(connection: Connection, *statement: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                with suppress(PostgresError, OSError):
                    await self._execute(connection, "SELECT pg_terminate_backend(pg_backend_pid())")
            return await send(connection, *statement, **options)

        return cut


@pytest.mark.parametrize("state", ["claimed", "released"])
async def test_a_database_that_goes_away_in_the_middle_erases_nothing(
    agent: Agent, running: Running, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """At whichever statement of a checkin: the usual answer, or that it is our own trouble."""
    token = await agent.claimed()
    if state == "released":
        await release(running)
    usual = await agent.checkin(token)
    assert usual.text == ("Authentication failed" if state == "released" else '{"message":"No update available"}')
    cut, told = Cut(monkeypatch), []
    for statement in range(1, 50):
        cut.left = statement
        told.append(await agent.checkin(token, version=f"1.0.{statement}"))
        if cut.left > 0:
            break
    assert cut.left > 0, "a checkin has no end of statements"
    ours = Reply(500, "Internal error", "text/plain")
    assert all(reply in (usual, ours) for reply in told)
    assert told.count(ours) >= 2, "nothing was cut"
    assert told[-1] == usual, "the service has not come back"


# --- every call ---


async def test_every_path_takes_both_forms_of_a_token(agent: Agent) -> None:
    token = await agent.claimed()
    for path in both(DEVICE_CALLS):
        body = b"" if "Creds" in path else {"id": DEVICE, "update": "upd1", "success": True}
        replies = [
            await agent.post(path, body, form.format(token))
            for form in ("{}", "bearer {}", "Bearer {}", "BEARER   {}", "Basic {}", "bearer{}", "{0} {0}", "bearer\t{}")
        ]
        assert all(reply.text != "Access denied" for reply in replies[:4]), path
        assert all((reply.status, reply.text) == (403, "Access denied") for reply in replies[4:]), path


BODIES = [
    b"\xff\xfe{", b"[" * 5_000, b'{"id":"a","id":"b"}', b'{"x":"\\u0000"}', b'{"\\u0000":1}', b'{"x":"\\ud800"}',
    b'{"x":1e400}', b'{"x":NaN}', b'{"x":' + b"9" * 65 + b"}", b" " * 20_000, b"{" * 16_384, b"null", b"[]", b'"x"',
]  # fmt: skip


async def test_bodies_that_are_aimed_at_us(agent: Agent, lines: Lines) -> None:
    token = await agent.claimed()
    calls = [(path, token) for path in (*http.CHECKIN, *http.REPORT, *http.GET_CERTS)]
    for path, shown in (*calls, *((path, TOKEN) for path in (*http.BUILDER, http.ROOT_REGISTER))):
        for body in BODIES:
            reply = await agent.post(path, body, shown)
            assert (reply.status, reply.content_type) == (400, "text/plain"), (path, body[:20], reply)
            assert reply.text in {"Invalid request", "Invalid request body", "Request too large"}
    assert "failed" not in {line.get("outcome") for line in lines}


async def test_versions_that_are_aimed_at_us(agent: Agent, running: Running) -> None:
    token = await agent.claimed()
    await publish(running, "2.0.0")
    for version in (
        "1" * 9_000 + ".0.0", "1.0.0-" + "a." * 5_000, "1.0.0-" + "1" * 9_000, "1." * 5_000, "1.0.0-" + "0" * 120,
        "\u0661.0",
    ):  # fmt: skip
        reply = await agent.checkin(token, version=version)
        assert reply.body == {"message": "No update available"}, version[:20]


# --- checkin ---


async def test_checkin_without_an_update(agent: Agent, running: Running) -> None:
    token = await agent.claimed()
    for path in both(http.CHECKIN):
        for body in (b"", {}, {"id": DEVICE, "productId": TOKEN, "version": "1.3.0", "new": [1]}):
            reply = (await agent.post(path, body, token)).body
            assert reply == {"message": "No update available"}
    async with running.database.read() as tx:
        device = await claims.device(tx, wire.PROTOCOL, DEVICE)
        told = (await store.told(tx, [device.id]))[device.id]
    assert (told.version, told.fields["new"], told.fields["productId"]) == ("1.3.0", [1], wire.product_key(TOKEN))
    assert told.checked_at is not None


async def publish(running: Running, version: str, *, policy: str = "", test: bool = False) -> str:
    """An update of the product: its name."""
    new = Update(
        protocol="ioto", product=wire.product_key(TOKEN), version=version, checksum=CHECKSUM, size=14,
        file="firmware.bin", policy=policy, test=test,
    )  # fmt: skip
    async with running.database.begin() as tx:
        return (await updates.publish(tx, new)).name


async def test_an_update_is_offered_with_a_link_that_we_signed(agent: Agent, running: Running) -> None:
    name = await publish(running, "1.4.0")
    token = await agent.claimed()
    reply = (await agent.checkin(token, id=DEVICE, version="1.3.0")).body
    url = urlsplit(reply.pop("url"))
    assert reply == {"checksum": CHECKSUM, "version": "1.4.0", "update": name}
    assert f"{url.scheme}://{url.netloc}" == API
    key, asked = running.database.sealer.derive(links.PURPOSE), dict(parse_qsl(url.query))
    checksum, file = url.path.split("/")[-2:]
    links.check_link(
        key, checksum, file, expires=asked["expires"], signature=asked["signature"], now=datetime.now(UTC)
    )  # fmt: skip
    assert "url" not in (await agent.checkin(token, version="1.4.0")).body
    assert "url" in (await agent.checkin(token)).body, "no version is older than everything"
    for path in both(http.REPORT):
        body = {"id": DEVICE, "update": name, "success": True}
        assert (await agent.post(path, body, token)).text == "{}"
    async with running.database.read() as tx:
        assert (await updates.find(tx, name)).succeeded == 1


async def test_test_updates_are_for_test_devices(agent: Agent, running: Running) -> None:
    await publish(running, "2.0.0", test=True)
    token = await agent.claimed()
    assert "url" not in (await agent.checkin(token)).body
    assert "url" not in (await agent.checkin(token, test="true")).body
    assert "url" in (await agent.checkin(token, test=True)).body
    assert "url" not in (await agent.checkin(token, test=False)).body
    tester = (await agent.register("TESTER", account="A", cloud="c", test=True)).body["token"]
    assert "url" in (await agent.checkin(tester)).body, "it has said so when it registered"


async def test_a_policy_sees_what_the_device_told_at_any_time(agent: Agent, running: Running) -> None:
    await publish(running, "2.0.0", policy='model == "m1" && site == 7')
    token = await agent.claimed()
    assert "url" not in (await agent.checkin(token)).body
    assert "url" not in (await agent.checkin(token, site=7, model="m2")).body, "what it says now counts"
    assert "url" in (await agent.checkin(token, site=7)).body


async def test_checkins_that_will_not_do(agent: Agent) -> None:
    token = await agent.claimed()
    for wrong in ("ANOTHER", [DEVICE], ""):
        (await agent.checkin(token, id=wrong)).refused(400, "Device id mismatch")
    (await agent.checkin(token, version=1)).refused(400, "Invalid version")
    (await agent.post("/provision/checkin", b"[]", token)).refused(400, "Invalid request body")


async def test_a_disabled_device_is_blocked(agent: Agent, running: Running) -> None:
    token = await agent.claimed()
    async with running.database.begin() as tx:
        await registry.disable(tx, await claims.device(tx, wire.PROTOCOL, DEVICE))
    assert (await agent.get_certs(token)).body == {"error": "Device is blocked", "delay": 3600}
    (await agent.checkin(token)).refused(403, "Device is blocked")
    (await agent.post("/device/getCreds", b"", token)).refused(403, "Device is blocked")
    assert await live(running) == []


NO_REPORTS: list[tuple[Any, str]] = [
    (b"", "Invalid update"),
    ({"update": "upd1"}, "Invalid success"),
    ({"update": "upd1", "success": "yes"}, "Invalid success"),
    ({"update": "x" * 101, "success": True}, "Invalid update"),
    ({"update": "upd1", "success": True, "id": "ANOTHER"}, "Device id mismatch"),
    ({"update": "upd1", "success": True, "id": DEVICE}, "Unknown update"),
]


async def test_reports_that_will_not_do(agent: Agent) -> None:
    token = await agent.claimed()
    for body, text in NO_REPORTS:
        (await agent.post("/provision/updateReport", body, token)).refused(400, text)


# --- getCerts ---


async def test_a_certificate(agent: Agent, running: Running) -> None:
    token = await agent.claimed()
    reply = (await agent.get_certs(token)).body
    leaf, key = x509.load_pem_x509_certificate(reply["certificate"].encode()), reply["key"].encode()
    assert reply == {
        "accountId": "ACC1", "certificate": reply["certificate"], "endpoint": "mqtt.example.org", "id": DEVICE,
        "key": reply["key"], "port": running.mqtts.port, "thing": DEVICE, "cloudType": "hosted", "cloudName": "main",
        "cloudRegion": "local",
    }  # fmt: skip
    private = load_pem_private_key(key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert private.public_key() == leaf.public_key()
    assert leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == DEVICE
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= timedelta(days=3651)
    (stored,) = await live(running)
    assert stored.identity is not None
    assert stored.identity.device == DEVICE


async def test_paths_of_certificates(agent: Agent) -> None:
    token = await agent.claimed()
    for path in both(http.GET_CERTS):
        assert (await agent.post(path, {"id": DEVICE}, token)).body["thing"] == DEVICE
        (await agent.post(path, {"id": "ANOTHER"}, token)).refused(400, "Device id mismatch")
        (await agent.post(path, b"", token)).refused(400, "Missing device id")


async def test_rsa_by_setting_and_a_port_of_choice(agent: Agent, serve: Serve) -> None:
    agent.running = await serve(ioto={"certificate_key": "rsa2048", "mqtt_port": 443, "certificate_days": 30})
    reply = (await agent.get_certs(await agent.claimed())).body
    leaf = x509.load_pem_x509_certificate(reply["certificate"].encode())
    assert isinstance(load_pem_private_key(reply["key"].encode(), None), rsa.RSAPrivateKey)
    assert reply["port"] == 443
    assert reply["endpoint"] == "localhost", "the device asked an address"
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= timedelta(days=31)


async def test_each_call_makes_a_new_key_and_the_old_certificate_goes_when_the_new_one_was_used(
    agent: Agent, running: Running
) -> None:
    token = await agent.claimed()
    keys = {(await agent.get_certs(token)).body["key"] for _ in range(2)}
    assert len(keys) == 2
    old, new = await live(running)
    assert old.superseded_by == new.id
    now = datetime.now(UTC)
    async with running.database.begin() as tx:
        assert await inventory.revoke_replaced(tx, now=now) == []
        assert await claims.revoke_outlived(tx, now=now + timedelta(hours=23, minutes=59)) == []
        await certificates.note_seen(tx, {new.id: now})
        assert [each.id for each in await inventory.revoke_replaced(tx, now=now)] == [old.id]


async def test_after_a_day_the_old_certificate_goes_whether_or_not_the_new_one_was_used(
    agent: Agent, running: Running
) -> None:
    token = await agent.claimed()
    for _ in range(2):
        await agent.get_certs(token)
    old, new = await live(running)
    async with running.database.begin() as tx:
        done = await claims.revoke_outlived(tx, now=datetime.now(UTC) + timedelta(hours=24, minutes=1))
    assert [each.id for each in done] == [old.id]
    assert [each.id for each in await live(running)] == [new.id]


async def test_an_agent_that_asks_again_and_again_fills_nothing(agent: Agent, running: Running) -> None:
    token = await agent.claimed()
    await agent.get_certs(token)
    (in_use,) = await live(running)
    async with running.database.begin() as tx:
        await certificates.note_seen(tx, {in_use.id: datetime.now(UTC)})
    for _ in range(claims.MOST_UNSEEN + 3):
        await agent.get_certs(token)
    now_live = await live(running)
    assert len(now_live) == claims.MOST_UNSEEN + 1
    assert now_live[0].id == in_use.id, "what is in use stays"


async def test_a_release_revokes_certificates(agent: Agent, running: Running) -> None:
    await agent.get_certs(await agent.claimed())
    assert len(await live(running)) == 1
    await release(running)
    assert await live(running) == []


async def test_an_authority_that_may_not_issue_is_our_own_trouble(agent: Agent, running: Running) -> None:
    token = await agent.claimed()
    await execute(running.database, "UPDATE authority SET is_default = false")
    (await agent.get_certs(token)).refused(500, "Internal error")


# --- getCreds ---


class Provider:
    """Gives what the test says."""

    def __init__(self, answer: Credentials | Refusal) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str]] = []

    async def credentials(self, product: str, device: str) -> Credentials:
        self.asked.append((product, device))
        if isinstance(self.answer, Refusal):
            raise self.answer
        return self.answer


@asynccontextmanager
async def provided(running: Running, provider: Provider) -> AsyncIterator[str]:
    """The URL of the operations with another provider of credentials."""
    app = web.Application()
    app[WORLD] = World(running.database, running.endpoints, credentials=provider)
    app[METRICS], app[REQUEST_TIMEOUT] = running.metrics, 5.0
    app.add_routes(http.Operations(running.settings.ioto).routes())
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def asked(agent: Agent, url: str, token: str, body: bytes = b"") -> Reply:
    headers = {"Authorization": token, "Content-Type": "application/json"}
    async with agent.session.post(url, data=body, headers=headers) as response:
        return Reply(response.status, await response.text(), response.content_type)


async def test_credentials(agent: Agent, running: Running) -> None:
    token = await agent.claimed()
    expires = datetime(2031, 2, 3, 4, 5, 6, 7000, UTC)
    provider = Provider(
        Credentials(access_key_id="ASIA1", secret_access_key="s", session_token="t", expires=expires, region="r")
    )
    async with provided(running, provider) as url:
        for path in both(http.GET_CREDS):
            for body in (b"", b"{}", b"not JSON"):
                assert (await asked(agent, url + path, token, body)).body == {
                    "accessKeyId": "ASIA1", "secretAccessKey": "s", "sessionToken": "t",
                    "expires": "2031-02-03T04:05:06.007Z", "region": "r",
                }  # fmt: skip
    assert set(provider.asked) == {(wire.product_key(TOKEN), DEVICE)}


async def test_no_credentials(agent: Agent, running: Running) -> None:
    token = await agent.claimed()
    for refusal, status, text in (
        (Refusal(Reason.UNSUPPORTED), 403, "IAM credentials are not enabled"),
        (Refusal(Reason.UNAVAILABLE, error="AWS STS does not answer"), 500, "AWS STS does not answer"),
    ):
        async with provided(running, Provider(refusal)) as url:
            (await asked(agent, f"{url}/device/getCreds", token)).refused(status, text)


async def test_credentials_are_off_unless_switched_on(agent: Agent) -> None:
    (await agent.post("/provision/getCreds", b"", await agent.claimed())).refused(
        403, "IAM credentials are not enabled"
    )  # fmt: skip


# --- names ---


@pytest.mark.parametrize(
    ("setting", "listener", "asked", "names", "host"),
    [
        ("m.example.org", "l.example.org", "a.example.org", ("n.example.org",), "m.example.org"),
        (None, "l.example.org", "a.example.org", (), "l.example.org"),
        (None, "127.0.0.1", "a.example.org", (), "a.example.org"),
        (None, "127.0.0.1", "192.0.2.1", ("192.0.2.1", "n.example.org"), "n.example.org"),
        (None, "", "[::1]", ("*.example.org", "::1"), "localhost"),
    ],
)
def test_agents_are_sent_to_a_name(
    setting: str | None, listener: str, asked: str, names: tuple[str, ...], host: str
) -> None:
    assert http.mqtt_host(Ioto(mqtt_host=setting), Endpoints(mqtts_host=listener), asked, names) == host


# --- the log ---


async def test_the_log_shows_no_token_and_no_key(agent: Agent, lines: Lines, running: Running) -> None:
    token = await agent.claimed()
    certified = (await agent.get_certs(token)).body
    await agent.checkin(token)
    await agent.checkin("wrong-" + token)
    await agent.post("/api/device/register", {"id": DEVICE, "product": "x"}, TOKEN)
    await release(running)
    written = repr(lines)
    for secret in (token, TOKEN, certified["key"][30:60], certified["certificate"][30:60]):
        assert secret not in written
    (made,) = [line for line in lines if line["event"] == "http.get_certs"]
    assert (made["device"], made["product"], made["outcome"]) == (DEVICE, wire.product_key(TOKEN), "accepted")


async def test_rows_make_devices_that_agents_find_again(agent: Agent, running: Running) -> None:
    row: dict[str, object] = {"type": "device", "protocol": "ioto", "id": DEVICE, "productToken": TOKEN}
    await load_rows(running, PRODUCT, OTHER_PRODUCT, row | {"accountId": "ACC9", "cloudType": "dedicated"})
    reply = (await agent.register()).body
    assert (reply["cloudType"], reply["cloudName"]) == ("dedicated", "main")
    assert (await agent.get_certs(reply["token"])).body["accountId"] == "ACC9"
