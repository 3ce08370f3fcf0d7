"""What modules do: bootstraps and heartbeats over the wire, and what is noted and told of them. Contract: section 3."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from provisioning.app import Running
from provisioning.core import pki, registry
from provisioning.model.account import Account
from provisioning.protocols.ublox import machine
from provisioning.store import devices, keysets
from provisioning.store.keysets import Mode, Rotation
from tests.machines import Machine
from tests.provisioning.protocols.conftest import Lines
from tests.ublox import OTHER_KEY, PROFILE, Client, Clock, make_account, make_devices, make_profile

UID, SECOND, THIRD = "0002000089280087", "0002000089280088", "000200008928c093"
OTHER_PROFILE = "QHlN732VgUWCdfNeXHkQR1"
UNATTRIBUTED = "UNATTRIBUTED DEVICE PROFILE"
IMEI = "862618583984360"
FACTS = {
    "RotVersion": "1", "SerialNumber": "235435", "Version": "12", "DeviceSerialNumber": "123234354", "IMEI": IMEI,
    "TypeNumber": "SARA-R410M-03B-00",
}  # fmt: skip
LOCAL_DPR = {"Authorizations": [{"Name": "LocalDPR", "State": "ENABLED"}]}
DEFAULT = 1_209_600
NOT_AUTHORIZED = (401, {"message": "Not Authorized."})


class Site:
    """A service with an account, three of its modules, a webhook for each event; what it has noted of them."""

    def __init__(self, running: Running, account: Account, api: Client, ids: list[int]) -> None:
        self.running, self.account, self.api = running, account, api
        self.ids = dict(zip((UID, SECOND, THIRD), ids, strict=True))
        self.clock = Clock()
        self.clock.set_on(running)

    def machine(self, uid: str = UID) -> Machine:
        return Machine(self.api, uid, self.clock)

    async def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        async with self.running.database.read() as tx:
            return [tuple(row) for row in await tx.db.fetch(query, *values)]

    async def notified(self, uid: str = UID) -> list[tuple[str, dict[str, Any]]]:
        """Kind and payload of its notifications."""
        query = "SELECT kind, payload FROM notification WHERE device_id = $1 ORDER BY id"
        return [(kind, json.loads(payload)) for kind, payload in await self.rows(query, self.ids[uid])]

    async def announced(self) -> list[dict[str, Any]]:
        """Bodies for webhooks."""
        return [json.loads(body) for (body,) in await self.rows("SELECT body FROM delivery ORDER BY id")]

    async def activities(self, uid: str = UID) -> list[tuple[str, str, dict[str, Any]]]:
        query = "SELECT command, result, details FROM activity WHERE device_id = $1 ORDER BY id"
        return [(command, result, json.loads(more)) for command, result, more in await self.rows(query, self.ids[uid])]

    async def clones(self, uid: str = UID) -> list[tuple[Any, ...]]:
        query = "SELECT reason, source, imei FROM clone_event WHERE device_id = $1 ORDER BY id"
        return await self.rows(query, self.ids[uid])

    async def column(self, name: str, uid: str = UID) -> Any:
        ((value,),) = await self.rows(f"SELECT {name} FROM module WHERE uid = $1", uid)
        return value

    async def unreachable(self) -> int:
        async with self.running.database.begin() as tx:
            return await machine.unreachable(tx, now=self.clock(), limit=10)

    async def allow(self, *uids: str) -> None:
        await self.api.ok("/device/whitelist/add", {"ROTPublicUIDs": list(uids)})

    async def provision(self, provisioning: dict[str, Any], uid: str = UID) -> None:
        await self.api.ok("/device/provisioning/set", {"ROTPublicUIDs": [uid], "Provisioning": provisioning})


@pytest.fixture
async def site(running: Running, account: Account, api: Client) -> Site:
    ids = await make_devices(running.database, account, [UID, SECOND, THIRD])
    async with running.database.begin() as tx:
        await tx.db.execute(
            """INSERT INTO webhook (account_id, url, kind, authorization_token, created_at)
               SELECT $1, 'https://127.0.0.1:9/', kind, ''::bytea, $3 FROM unnest($2::text[]) AS kinds (kind)""",
            account.id, ["DEVICE_BOOTSTRAP_EVENT", "DEVICE_PROPERTIES_CHANGE_EVENT", "DEVICE_ERRORS_EVENT"], Clock()(),
        )  # fmt: skip
    return Site(running, account, api, ids)


# --- who it is -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/device/v1/bootstrap", "/device/v1/heartbeat"])
async def test_who_cannot_prove_itself_gets_one_answer(site: Site, lines: Lines, path: str) -> None:
    module = site.machine()
    body = module.bootstrap_body() | {"Counter": 1, "Applied": []}
    wrong = Machine(site.api, UID, site.clock, secret=bytes(32))
    unknown = Machine(site.api, "0002000089289999", site.clock)
    signed = body | {"Mac": "0" * 64}
    answers = [
        await wrong.send(path, body), await unknown.send(path, body | {"ROTPublicUID": unknown.uid}),
        await module.post(path, signed), await module.post(path, signed | {"Mac": "é"}),
    ]  # fmt: skip
    async with site.running.database.begin() as tx:
        (device,) = await devices.by_ids(tx, [site.ids[UID]])
        await registry.disable(tx, device)
    answers.append(await module.send(path, body))
    assert [(answer.status, answer.body) for answer in answers] == [NOT_AUTHORIZED] * 5
    assert await site.rows("SELECT FROM activity UNION ALL SELECT FROM clone_event") == []
    name = "http." + path.rpartition("/")[2]
    logged = [line for line in lines if line["event"] == name]
    assert [line["reason"] for line in logged] == ["not_proven"] * 4 + ["disabled"]
    assert logged[1]["device"] == unknown.uid
    assert "account" not in logged[1]


async def test_bodies_that_are_none(site: Site) -> None:
    """Each is refused before anybody asks who sent it."""
    module = site.machine()
    json_type = {"Content-Type": "application/json"}
    for path in ("/device/v1/bootstrap", "/device/v1/heartbeat"):
        for data in (b"", b"{", b"[]", b"null", b'{"ROTPublicUID":1,"ROTPublicUID":1}', b"\xff"):
            answer = await site.api.send(path, data, headers=json_type)
            assert (answer.status, answer.body) == (400, {"message": "Bad Request"}), data
        large = await module.post(path, {"x": "x" * 16_384})
        assert (large.status, large.body) == (413, {"message": "Payload Too Large"})
        text = await site.api.send(path, b"{}", headers={"Content-Type": "text/plain"})
        assert (text.status, text.body) == (415, {"message": "Unsupported Media Type"})


# --- bootstrap -------------------------------------------------------------------------------------------------------


async def test_without_leave_it_is_allocated_and_blacklisted(site: Site, lines: Lines) -> None:
    module = site.machine()
    assert await module.bootstrap(**FACTS) == {
        "ROTPublicUID": UID, "State": "ALLOCATED", "IsBlacklisted": True, "SecurityHeartbeatInSec": DEFAULT,
        "Commands": [],
    }  # fmt: skip
    facts = FACTS | {"DeviceProfileUID": UNATTRIBUTED, "IsBlacklisted": True}
    assert await site.notified() == [
        ("DEVICE_INFO_CHANGE", facts),
        ("DEVICE_STATE_CHANGE", {"State": "ALLOCATED", "PreviousState": "UNKNOWN"}),
    ]
    (event,) = await site.announced()
    at = site.clock().strftime("%Y-%m-%dT%H:%M:%SZ")
    assert event == {
        "ROTPublicUID": UID, "Timestamp": at, "EventType": "DEVICE_BOOTSTRAP_EVENT", "Payload": facts
    }  # fmt: skip
    assert await site.activities() == [("BOOTSTRAP", "OK", {"State": "ALLOCATED"})]
    assert await site.column("sealed_at") is None
    assert await module.beat() == [], "no features, and heard all the same"
    (line,) = [line for line in lines if line["event"] == "http.bootstrap"]
    assert (line["account"], line["device"], line["state"], line["outcome"]) == (
        site.account.key, UID, "ALLOCATED", "accepted"
    )  # fmt: skip
    assert not any("Mac" in str(line) or "000102" in str(line) for line in lines)


async def test_whitelisted_by_uid_or_imei_it_is_activated_with_its_profile(site: Site) -> None:
    await make_profile(site.running.database, site.account)
    provisioning = LOCAL_DPR | {"NetworkParameters": [{"Name": "SecurityHeartbeatInSec", "Value": 86_400}]}
    path = "/deviceprofile/bootstrapprovisioning/set"
    await site.api.ok(path, {"DeviceProfileUID": PROFILE, "Provisioning": provisioning})
    await site.api.ok("/device/whitelist/add", {"ROTPublicUIDs": [UID], "IMEIs": [IMEI]})
    reply = await site.machine().bootstrap(DeviceProfileUID=PROFILE)
    numbers = [each.pop("Id") for each in reply["Commands"]]
    assert numbers == sorted(numbers)
    assert reply == {
        "ROTPublicUID": UID, "State": "ACTIVATED", "IsBlacklisted": False, "SecurityHeartbeatInSec": 86_400,
        "Commands": [
            {"Command": "SET_AUTHORIZATIONS", **LOCAL_DPR},
            {"Command": "SET_HEARTBEAT", "SecurityHeartbeatInSec": 86_400},
        ],
    }  # fmt: skip
    assert [kind for kind, _ in await site.notified()] == [
        "DEVICE_INFO_CHANGE", "DEVICE_STATE_CHANGE", "DEVICE_PROPERTIES_CHANGE"
    ]  # fmt: skip
    change = (await site.notified())[-1][1]
    (state,) = change["DesiredProperties"]["Authorizations"]
    assert (state["Name"], state["State"], list(state)[-1]) == ("LocalDPR", "ENABLED", "ModifiedDate")
    assert list(change["CurrentProperties"]["Authorizations"][0])[-1] == "SyncDate"
    events = await site.announced()
    assert [each["EventType"] for each in events] == ["DEVICE_BOOTSTRAP_EVENT", "DEVICE_PROPERTIES_CHANGE_EVENT"]
    assert events[1]["Payload"] == change
    assert await site.rows("SELECT kind, n FROM usage") == [("LocalDPR", 1)]
    ((state, activated_at),) = await site.rows("SELECT state, activated_at FROM device WHERE key = $1", UID)
    assert (state, activated_at) == ("activated", site.clock())
    assert await site.column("sealed_at") == site.clock()
    assert (await site.machine(SECOND).bootstrap(IMEI=IMEI))["State"] == "ACTIVATED"
    assert await site.column("whitelisted", SECOND) is True
    assert (await site.machine(THIRD).bootstrap(IMEI="862618583984361"))["State"] == "ALLOCATED"


async def test_a_profile_that_ignores_the_whitelist(site: Site) -> None:
    await make_profile(site.running.database, site.account, whitelist_check=False)
    module = site.machine()
    assert (await module.bootstrap(DeviceProfileUID=PROFILE))["State"] == "ACTIVATED"
    assert await site.column("whitelisted") is False
    listed = await site.api.ok("/device/list/get", {"Filter": "BLACKLISTED"})
    assert listed["ROTPublicUIDs"] == []


async def test_a_profile_may_be_sealed_later_and_what_is_sealed_stays(site: Site) -> None:
    for uid in (PROFILE, OTHER_PROFILE):
        await make_profile(site.running.database, site.account, uid, name=uid)
    path = "/deviceprofile/bootstrapprovisioning/set"
    await site.api.ok(path, {"DeviceProfileUID": PROFILE, "Provisioning": LOCAL_DPR})
    await site.allow(UID)
    module = site.machine()
    await module.bootstrap(IMEI=IMEI, DeviceProfileUID=UNATTRIBUTED)
    assert await site.column("profile_id") is None
    await site.provision({"LocalDPR": "DISABLED", "LocalC2C": "ENABLED"})
    site.clock.move(days=1)
    reply = await module.bootstrap(DeviceProfileUID=PROFILE, IMEI="862618583984361", Version="2")
    (command,) = reply["Commands"]
    assert command["Authorizations"] == [
        {"Name": "LocalDPR", "State": "DISABLED"}, {"Name": "LocalC2C", "State": "ENABLED"}
    ], "what was set for the module itself goes before its profile's"  # fmt: skip
    assert (await site.column("imei"), await site.column("version")) == (IMEI, "2")
    assert await site.column("sealed_at") == site.clock()
    assert await site.clones() == []
    site.clock.move(days=1)
    await module.bootstrap(DeviceProfileUID=OTHER_PROFILE, Version="3", IMEI="862618583984362")
    facts = (await site.notified())[0][1]
    assert (facts["DeviceProfileUID"], facts["Version"]) == (UNATTRIBUTED, None)
    ((profile, version),) = await site.rows(
        "SELECT g.key, m.version FROM module m JOIN enrolment_group g ON g.id = m.profile_id WHERE uid = $1", UID
    )
    assert (profile, version) == (PROFILE, "2")
    assert await site.clones() == [("DUPLICATE_BOOTSTRAP", "127.0.0.1", "862618583984362")]
    assert (await site.activities())[-1] == ("BOOTSTRAP", "OK", {"State": "ACTIVATED", "Duplicate": True})
    kinds = [kind for kind, _ in await site.notified()]
    assert kinds.count("DEVICE_INFO_CHANGE") == 2, "the duplicate was not stored"


async def test_the_same_bootstrap_again_and_older_ones(site: Site) -> None:
    module = site.machine()
    site.clock.move(days=1)
    body = module.bootstrap_body(IMEI=IMEI, Unknown=[1, "é"])
    first = await module.send("/device/v1/bootstrap", body)
    site.clock.move(minutes=1)
    again = await module.send("/device/v1/bootstrap", body)
    assert (first.status, again.status) == (200, 200)
    assert first.body == again.body
    assert len(await site.activities()) == 1
    future = await module.send("/device/v1/bootstrap", module.bootstrap_body(site.clock() + timedelta(hours=25)))
    assert (future.status, future.body) == (400, {"message": "Bad Request. Invalid Timestamp"})
    older = await module.send("/device/v1/bootstrap", module.bootstrap_body(site.clock() - timedelta(hours=1)))
    assert (older.status, older.body) == (400, {"message": "Bad Request. Invalid Timestamp"})
    assert [reason for reason, *_ in await site.clones()] == ["DUPLICATE_BOOTSTRAP"], "it cannot be its last one"
    other = await module.send("/device/v1/bootstrap", body | {"Unknown": [1, "ä"]})
    assert other.body == first.body
    assert [reason for reason, *_ in await site.clones()] == ["DUPLICATE_BOOTSTRAP"] * 2
    await module.send("/device/v1/bootstrap", body | {"Unknown": [1, "ä"]})
    assert len(await site.clones()) == 2, "that one was repeated, too"


async def test_profiles_that_are_not_the_accounts(site: Site) -> None:
    other = await make_account(site.running.database, OTHER_KEY)
    await make_profile(site.running.database, other, whitelist_check=False)
    module = site.machine()
    for uid in (PROFILE, OTHER_PROFILE):
        answer = await module.send("/device/v1/bootstrap", module.bootstrap_body(DeviceProfileUID=uid))
        assert (answer.status, answer.body) == (400, {"message": "Bad Request. Invalid DeviceProfileUID"})
    assert await site.column("bootstrapped_at") is None
    assert await site.activities() == []


async def test_a_twin_and_a_clash_of_serial_numbers(site: Site) -> None:
    """Headers of messages name bytes 2 to 7 of the uid; serial numbers should be different ones."""
    twin = "ffff" + UID[4:]
    site.ids[twin], near = await make_devices(site.running.database, site.account, [twin, "0002ffff89280087"])
    await site.machine(twin).bootstrap(SerialNumber="1", DeviceSerialNumber="D1")
    module = site.machine()
    answer = await module.send("/device/v1/bootstrap", module.bootstrap_body())
    assert (answer.status, answer.body) == (409, {"message": "Bad Request. ROTPublicUID already exists"})
    assert await site.column("bootstrapped_at") is None
    await site.machine("0002ffff89280087").bootstrap(SerialNumber="1", DeviceSerialNumber="D2")
    await site.machine(SECOND).bootstrap(SerialNumber="2", DeviceSerialNumber="D2")
    await site.machine(THIRD).bootstrap(SerialNumber="3", DeviceSerialNumber="D3")
    found = await site.rows("SELECT device_id, reason, value FROM suspicion ORDER BY 2, 1")
    first, sealing = "DUPLICATED_SCL_SERIAL_NUM_SEALED_INFO", "DUPLICATED_DEV_SERIAL_NUM_SEALING"
    assert sorted(found) == sorted([
        (site.ids[twin], first, "1"), (near, first, "1"), (near, sealing, "D2"), (site.ids[SECOND], sealing, "D2"),
    ])  # fmt: skip


# --- heartbeat -------------------------------------------------------------------------------------------------------


async def test_it_beats_only_after_its_bootstrap(site: Site) -> None:
    module = site.machine()
    answer = await module.try_beat()
    assert (answer.status, answer.body) == (400, {"message": "Bad Request"})
    assert await site.column("counter") == 0


async def test_allowed_later_it_is_activated_by_its_next_heartbeat(site: Site) -> None:
    await make_profile(site.running.database, site.account)
    path = "/deviceprofile/bootstrapprovisioning/set"
    await site.api.ok(path, {"DeviceProfileUID": PROFILE, "Provisioning": LOCAL_DPR})
    module = site.machine()
    await module.bootstrap(DeviceProfileUID=PROFILE)
    assert await module.beat() == []
    await site.allow(UID)
    (command,) = await module.beat()
    assert command == {"Id": command["Id"], "Command": "SET_AUTHORIZATIONS", **LOCAL_DPR}
    assert (await site.notified())[2:][0] == (
        "DEVICE_STATE_CHANGE", {"State": "ACTIVATED", "PreviousState": "ALLOCATED"}
    )  # fmt: skip
    await site.api.ok("/device/whitelist/add", {"ROTPublicUIDs": [UID], "Action": "DELETE"})
    assert await module.beat() == []
    assert len(await site.notified()) == 4, "an activated module stays so"
    assert [each[0] for each in await site.activities()] == [
        "BOOTSTRAP", "HEARTBEAT", "HEARTBEAT", "HEARTBEAT", "SET_AUTHORIZATIONS"
    ]  # fmt: skip


async def test_what_is_desired_is_current_after_a_heartbeat_and_told_until_it_is_acknowledged(site: Site) -> None:
    await site.allow(UID)
    module = site.machine()
    await module.bootstrap()
    await site.provision({"LocalDPR": "ENABLED", "LocalC2C": "ENABLED", "SecurityHeartbeatInSec": 3_600})
    site.clock.move(minutes=30)
    first = await module.beat()
    assert module.names() == ["SET_AUTHORIZATIONS", "SET_HEARTBEAT"]
    assert await module.beat(Applied=[]) == first, "the answer was lost"
    assert len([kind for kind, _ in await site.notified() if kind == "DEVICE_PROPERTIES_CHANGE"]) == 1
    await site.provision({"LocalC2C": "DISABLED"})
    second = await module.beat(Applied=["SET_HEARTBEAT"])
    assert module.names() == ["SET_AUTHORIZATIONS"], "the newer one says it all"
    assert second[0]["Id"] > first[1]["Id"]
    assert second[0]["Authorizations"] == [
        {"Name": "LocalDPR", "State": "ENABLED"}, {"Name": "LocalC2C", "State": "DISABLED"}
    ]  # fmt: skip
    late = {"Id": first[0]["Id"], "Command": "SET_AUTHORIZATIONS", "Result": "OK"}
    assert await module.beat(Applied=[late]) == second, "that one is of no interest any more"
    assert await module.beat() == []
    assert await module.beat(Applied=["SET_AUTHORIZATIONS", late]) == [], "acknowledged before"
    usage = dict(await site.rows("SELECT kind, sum(n)::int FROM usage GROUP BY kind"))
    assert usage == {"LocalDPR": 1, "LocalC2C": 1}
    applied = [each for each in await site.activities() if each[0].startswith("SET_")]
    assert applied == [
        ("SET_HEARTBEAT", "OK", {"Id": first[1]["Id"]}), ("SET_AUTHORIZATIONS", "OK", {"Id": second[0]["Id"]}),
    ]  # fmt: skip


async def test_a_command_that_fails_is_told_once(site: Site) -> None:
    await site.allow(UID)
    module = site.machine()
    await module.bootstrap()
    await site.provision({"LocalDPR": "ENABLED"})
    (command,) = await module.beat()
    failed = {"Command": "SET_AUTHORIZATIONS", "Result": "ERROR", "Error": "é" * 300}
    assert await module.beat(Applied=[failed, failed]) == []
    error = {"Error": "SET_AUTHORIZATIONS: " + "é" * 256}
    assert (await site.notified())[-1] == ("DEVICE_ERROR", error)
    (event,) = [each for each in await site.announced() if each["EventType"] == "DEVICE_ERRORS_EVENT"]
    assert event["Payload"] == error
    assert (await site.activities())[-1] == (
        "SET_AUTHORIZATIONS", "ERROR", {"Id": command["Id"], "Error": "é" * 256}
    )  # fmt: skip


async def test_without_provisioning_only_the_interval_goes_back(site: Site) -> None:
    await site.allow(UID)
    module = site.machine()
    await module.bootstrap()
    await site.provision({"LocalDPR": "ENABLED", "SecurityHeartbeatInSec": 3_600})
    await module.beat()
    assert await site.column("due_at") == site.clock() + timedelta(hours=2)
    await site.api.ok("/device/provisioning/delete", {"ROTPublicUIDs": [UID]})
    (command,) = await module.beat()
    assert (command["Command"], command["SecurityHeartbeatInSec"]) == ("SET_HEARTBEAT", DEFAULT)
    assert await site.column("due_at") == site.clock() + timedelta(seconds=2 * DEFAULT)
    assert (await site.notified())[-1][1]["CurrentProperties"]["Authorizations"][0]["State"] == "ENABLED"
    assert await module.beat() == []


async def test_it_is_told_how_its_keys_change(site: Site) -> None:
    await site.allow(UID)
    module = site.machine()
    await module.bootstrap()
    ids = [site.ids[UID]]
    async with site.running.database.begin() as tx:
        await keysets.rotate(tx, ids, Rotation(Mode.AUTOMATIC, 2), site.clock())
    (command,) = await module.beat()
    assert command == {"Id": command["Id"], "Command": "ROTATE_KEYSET", "Type": "AUTOMATIC", "Days": 2}
    assert await module.beat() == []
    site.clock.move(days=2)
    assert [each["Command"] for each in await module.beat()] == ["ROTATE_KEYSET"]
    async with site.running.database.begin() as tx:
        await keysets.rotate(tx, ids, Rotation(Mode.CONTINUOUS), site.clock())
    (command,) = await module.beat(Applied=[])
    assert (command["Type"], "Days" in command) == ("CONTINUOUS", False)
    site.clock.move(days=40)
    assert await module.beat() == []


async def test_a_counter_that_does_not_grow_is_a_clones(site: Site, lines: Lines) -> None:
    module, clone = site.machine(), site.machine()
    await module.bootstrap(IMEI=IMEI)
    module.counter = 41
    await module.beat()
    clone.counter = 40
    for _ in range(2):
        module.counter -= 1
        answer = await module.try_beat()
        assert (answer.status, answer.body) == (400, {"message": "Bad Request. Invalid Counter"})
    assert await site.clones() == [("COUNTER_REGRESSION", "127.0.0.1", IMEI)] * 2
    refused = [line for line in lines if line["event"] == "http.heartbeat"][-1]
    assert (refused["outcome"], refused["state"], refused["account"]) == ("refused", "ALLOCATED", site.account.key)
    clone.counter = module.counter = 2**63 - 2
    answers = await asyncio.gather(*(each.try_beat() for each in (module, clone)))
    assert sorted(answer.status for answer in answers) == [200, 400], "of two at once one wins"
    assert len(await site.clones()) == 3
    assert await site.column("counter") == 2**63 - 1


async def test_a_request_for_a_certificate_must_be_one(site: Site) -> None:
    module = site.machine()
    await module.bootstrap()
    for text in ("x", "MII", "-----BEGIN CERTIFICATE REQUEST-----", pki.write_key(pki.new_key())):
        answer = await module.try_beat(CSR=text)
        assert (answer.status, answer.body) == (400, {"message": "Bad Request. Invalid CSR"}), text
    assert await site.column("counter") == 0, "it may try the same counter again"


async def test_what_does_not_come_is_unreachable_until_it_comes(site: Site) -> None:
    module = site.machine()
    await module.bootstrap()
    seen = site.clock().strftime("%Y-%m-%dT%H:%M:%SZ")
    assert await site.unreachable() == 0
    site.clock.move(seconds=2 * DEFAULT)
    assert await site.unreachable() == 1
    assert await site.unreachable() == 0, "once is enough"
    error = {"Error": f"The device is unreachable. It was last seen at {seen}."}
    assert (await site.notified())[-1] == ("DEVICE_ERROR", error)
    assert (await site.announced())[-1]["Payload"] == error
    await module.beat()
    site.clock.move(seconds=2 * DEFAULT)
    async with site.running.database.begin() as tx:
        (device,) = await devices.by_ids(tx, [site.ids[UID]])
        await registry.disable(tx, device)
    assert await site.unreachable() == 1
    assert len([kind for kind, _ in await site.notified() if kind == "DEVICE_ERROR"]) == 1, (
        "a disabled one may not come"
    )
