"""protocols/ublox/webhook.py: contract, sections 4.8 and 6."""

import hashlib
import hmac
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from provisioning.app import Running
from provisioning.core import webhooks as core
from provisioning.model.refusal import Refusal
from provisioning.protocols.ublox.notices import Event, announce, announce_of_account
from provisioning.protocols.ublox.webhook import Create, Update, write_webhooks
from provisioning.protocols.ublox.wire import write_time
from provisioning.store import modules
from tests.conftest import Serve, until
from tests.receivers import Receiver, receiver
from tests.ublox import OTHER_KEY, Client, Clock, client, make_account, make_devices

CREATE, UPDATE, DELETE, GET = (f"/notification/webhook/{name}" for name in ("create", "update", "delete", "get"))
UID = "0002000089280087"
TOKEN = "Bearer eiuytreuihkjfghdlyreuiyt"
GOOD = {"NotificationURL": "https://example.com", "AuthorizationToken": TOKEN, "NotificationType": Event.BOOTSTRAP}


@pytest.mark.parametrize("kind", Event)
def test_six_types(kind: Event) -> None:
    assert Create.read(GOOD | {"NotificationType": str(kind)}).kind is kind
    assert len(Event) == 6


@pytest.mark.parametrize("token", ["a", "Bearer a b", "~" * 4_096, "Basic dTpw"])
def test_tokens(token: str) -> None:
    asked = Update.read(GOOD | {"AuthorizationToken": token})
    assert asked.token == token
    assert f"'{token}'" not in repr(asked)


@pytest.mark.parametrize(
    ("field", "value"),
    [("AuthorizationToken", value) for value in
     ("", " a", "a ", "a\r\nX: y", "a\n", "a\tb", "\u00e9", "a\x7f", "~" * 4_097, 5, None, ["a"])]
    + [("NotificationURL", value) for value in
       ("", "http://example.com", "example.com", "https://u:p@example.com", "https://example.com/#a", "https://127.1/",
        "https://example.com/" + "x" * 2_029, 5, None, ["https://example.com"])]
    + [("NotificationType", value) for value in ("", "DEVICE_ERROR", "device_bootstrap_event", 5, None, True, ["a"])],
)  # fmt: skip
def test_values_that_do_not_fit(field: str, value: object) -> None:
    with pytest.raises(Refusal) as caught:
        Create.read(GOOD | {field: value})
    assert caught.value.detail["field"] == field


def test_nothing_registered() -> None:
    assert write_webhooks([]) == []


@pytest.mark.server
async def test_create_get_update_delete(running: Running, api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    clock.set_on(running)
    assert await api.ok(GET) == []
    assert await api.ok(CREATE, GOOD) == {"message": "Request Successful"}
    await api.ok(CREATE, GOOD | {"NotificationType": "ROOTCA_EXPIRATION_EVENT"})
    await api.ok(CREATE, GOOD | {"NotificationURL": "https://example.com/b"})
    await api.refused(CREATE, GOOD, 409, "Bad Request. NotificationURL already exists")
    listed = await api.ok(GET)
    assert listed == [
        {"NotificationURL": url, "NotificationType": kind, "CreatedDate": write_time(clock.now)}
        for url, kind in (
            ("https://example.com", "DEVICE_BOOTSTRAP_EVENT"), ("https://example.com", "ROOTCA_EXPIRATION_EVENT"),
            ("https://example.com/b", "DEVICE_BOOTSTRAP_EVENT"),
        )
    ]  # fmt: skip
    authorization = {"Authorization": str(api.token)}
    assert (await api.send(GET, b"", method="GET", headers=authorization)).body == listed
    for path in (CREATE, UPDATE, DELETE):
        await api.refused(path, {}, 400, "Bad Request")
        await api.refused(path, GOOD | {"NotificationURL": "ftp://x"}, 400, "Bad Request. Invalid NotificationURL")
    for host in ("127.0.0.1", "[::1]", "10.0.0.1", "localhost", "169.254.169.254", "[::ffff:8.8.8.8]", "100.64.0.1"):
        refused = GOOD | {"NotificationURL": f"https://{host}/"}
        await api.refused(CREATE, refused, 400, "Bad Request. Invalid NotificationURL")
    await make_account(running.database, OTHER_KEY)
    async with client(running) as found:
        other = await found.authenticate(OTHER_KEY)
        assert await other.ok(GET) == []
        for path in (UPDATE, DELETE):
            await other.refused(path, GOOD, 404, "Not Found")
        await other.ok(CREATE, GOOD)
    monkeypatch.setattr(core, "MOST", 3)
    await api.refused(
        CREATE, GOOD | {"NotificationURL": "https://c/"}, 400, "Bad Request. An account has at most 3 webhooks"
    )
    await api.ok(UPDATE, {"NotificationURL": "https://example.com", "AuthorizationToken": "new"})
    await api.ok(DELETE, {"NotificationURL": "https://example.com"})
    assert await api.ok(GET) == listed[2:]
    for path in (UPDATE, DELETE):
        await api.refused(path, GOOD, 404, "Not Found")
    assert len(await other_listing(running)) == 1, "another account's stays"


async def other_listing(running: Running) -> list[object]:
    async with client(running) as found:
        listed: list[object] = await (await found.authenticate(OTHER_KEY)).ok(GET)
        return listed


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Receiver]:
    async with receiver(tmp_path) as found:
        yield found


@pytest.mark.server
async def test_events_reach_the_receiver_as_the_contract_has_them(there: Receiver, serve: Serve) -> None:
    running = await serve(ublox={"rate": 0, "webhook_private": True, "webhook_ca": str(there.ca)})
    clock = Clock()
    clock.set_on(running)
    account = await make_account(running.database)
    await make_devices(running.database, account, [UID])
    async with client(running) as found:
        api = await found.authenticate()
        for kind in (Event.BOOTSTRAP, Event.ERRORS, Event.ROOTCA_EXPIRATION):
            await api.ok(CREATE, GOOD | {"NotificationURL": there.url(), "NotificationType": kind})
    async with running.database.begin() as tx:
        module = (await modules.of_account(tx, account.id, [UID]))[UID]
        await announce(tx, module, Event.BOOTSTRAP, {"IMEI": "862618583984360"}, now=clock.now - timedelta(seconds=1))
        await announce(tx, module, Event.PROPERTIES_CHANGE, {"no": "webhook"}, now=clock.now)
        await announce(tx, module, Event.ERRORS, {"Error": "\u00fc"}, now=clock.now)
        await announce_of_account(tx, account.id, "ca", Event.ROOTCA_EXPIRATION, {"DaysToExpiration": 0}, now=clock.now)
    await until(lambda: len(there.posts) == 3, "the events")
    before, at = write_time(clock.now - timedelta(seconds=1)), write_time(clock.now)
    of_device = [each.event for each in there.posts if "ROTPublicUID" in each.event]
    assert of_device == [
        {"ROTPublicUID": UID, "Timestamp": before, "EventType": "DEVICE_BOOTSTRAP_EVENT",
         "Payload": {"IMEI": "862618583984360"}},
        {"ROTPublicUID": UID, "Timestamp": at, "EventType": "DEVICE_ERRORS_EVENT", "Payload": {"Error": "\u00fc"}},
    ], "in order, across types"  # fmt: skip
    (of_account,) = (each.event for each in there.posts if "ROTPublicUID" not in each.event)
    assert of_account == {"Timestamp": at, "EventType": "ROOTCA_EXPIRATION_EVENT", "Payload": {"DaysToExpiration": 0}}
    for each in there.posts:
        assert each.headers["Authorization"] == TOKEN
        assert each.headers["Content-Type"] == "application/json"
        digest = hmac.new(TOKEN.encode(), each.body, hashlib.sha256).hexdigest()
        assert each.headers["X-Signature"] == f"sha256={digest}"
