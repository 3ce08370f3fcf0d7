"""Information about devices: contract, section 4.5."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from provisioning.app import Running
from provisioning.core.watch import Doubt
from provisioning.model.account import Account
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.ublox import info, wire
from provisioning.store import modules, notices, suspicions, usage
from tests.provisioning.store.registry import execute
from tests.ublox import OTHER_KEY, PROFILE, Client, Clock, make_account, make_devices, make_profile

UIDS = ["0002000089280087", "0002000089280088", "000200008928c093"]
FOREIGN = "0002000089290001"
UNATTRIBUTED = "UNATTRIBUTED DEVICE PROFILE"
PAST_THE_END = (3, 10**9, 10**18)


@dataclass
class Fleet:
    """Two modules without a profile and one with; the second and third have a tag. Another account has one too."""

    running: Running
    account: Account
    api: Client
    clock: Clock
    ids: list[int]
    foreign: int

    async def refused(self, path: str, body: dict[str, Any], *fields: str) -> None:
        """Each of the fields by itself is to blame."""
        for field in fields:
            await self.api.refused(path, body, 400, f"Bad Request. Invalid {field}")

    def time(self, **ago: float) -> str:
        return wire.write_time(self.clock.now - timedelta(**ago))

    def day(self, ago: int) -> str:
        return self.time(days=ago)[:10]


@pytest.fixture
async def fleet(running: Running, account: Account, api: Client) -> Fleet:
    clock = Clock()
    clock.set_on(running)
    database = running.database
    ids = await make_devices(database, account, UIDS[:2]) + await make_devices(
        database, account, UIDS[2:], serial="123234354", imei="862618583984360"
    )
    other = await make_account(database, OTHER_KEY)
    (foreign,) = await make_devices(database, other, [FOREIGN], serial="123234354")
    profile = await make_profile(database, account)
    async with database.begin() as tx:
        await modules.update(tx, ids[2], {"profile_id": profile, "last_seen": clock.now})
    await api.ok("/tag/create", {"TagName": "Downtown"})
    await api.ok("/tag/assign", {"TagNames": ["Downtown"], "ROTPublicUIDs": UIDS[1:]})
    return Fleet(running, account, api, clock, ids, foreign)


@pytest.mark.parametrize(
    ("form", "body", "field"),
    [
        (info.GetInfo, {"ROTPublicUIDs": UIDS, "Options": ["CORE", "ROT"]}, "Options"),
        (info.GetInfo, {"ROTPublicUIDs": UIDS, "Options": "CORE"}, "Options"),
        (info.GetInfo, {"ROTPublicUIDs": UIDS, "Options": []}, "Options"),
        (info.GetInfo, {"DeviceSerialNumbers": [7]}, "DeviceSerialNumbers"),
        (info.GetInfo, {"DeviceSerialNumbers": ["7"] * 1_001}, "DeviceSerialNumbers"),
        (info.GetInfo, {"ROTPublicUIDs": ["x"]}, "ROTPublicUIDs"),
        (info.GetInfo, {"TagNames": ["a"], "DeviceSerialNumbers": ["7"]}, None),
        (info.GetInfo, {"TagNames": []}, None),
        (info.GetNotifications, {"TagNames": ["a"]}, None),
        (info.GetNotifications, {"TagNames": ["a"], "FromDate": "yesterday"}, "FromDate"),
        (info.GetNotifications, {"TagNames": ["a"], "FromDate": 1}, "FromDate"),
        (info.GetNotifications, {"TagNames": ["a"], "FromDate": "2026-01-01", "ToDate": "2026-13-01"}, "ToDate"),
        (info.GetNotifications, {"FromDate": "2026-01-01"}, None),
        (
            info.GetNotifications,
            {"TagNames": ["a"], "FromDate": "2026-01-01", "NotificationType": "DEVICE_BOOTSTRAP_EVENT"},
            "NotificationType",
        ),
        (info.GetCloneEvents, {"FromDate": "2026-01-01", "TagNames": ["a"], "DeviceProfileUID": "p"}, None),
        (info.GetCloneEvents, {"FromDate": "2026-01-01", "DeviceProfileUID": "p", "PageNumber": 0}, "PageNumber"),
        (info.GetSuspicions, {"DeviceProfileUID": ""}, None),
        (info.GetSuspicions, {"DeviceProfileUID": "p", "PageNumber": "1"}, "PageNumber"),
        (info.GetActivities, {"FromDate": "2026-01-01"}, None),
        (info.GetActivities, {"FromDate": "2026-01-01", "ROTPublicUID": "-"}, "ROTPublicUID"),
        (info.GetUsage, {"FromDate": "2026-01-01T00:00:00Z"}, "FromDate"),
        (info.GetUsage, {"FromDate": "2026-02-30"}, "FromDate"),
        (info.GetUsage, {"FromDate": "2026-01-01", "ToDate": "20260102"}, "ToDate"),
        (info.GetUsage, {"FromDate": "2026-01-01", "TagNames": ["a"], "ROTPublicUIDs": UIDS}, None),
        (info.GetUids, {"TagNames": ["a"], "DeviceProfileUID": "p"}, None),
    ],
    ids=str,
)
def test_bad_requests(form: Any, body: dict[str, object], field: str | None) -> None:
    """`field` None: missing or contradictory fields, which are a plain Bad Request."""
    with pytest.raises(Refusal) as caught:
        form.read(body)
    if field is None:
        assert caught.value.reason is Reason.MISSING
    else:
        assert (caught.value.reason, caught.value.detail["field"]) == (Reason.MALFORMED, field)


@pytest.mark.server
async def test_device_info(fleet: Fleet) -> None:
    ok, now = fleet.api.ok, fleet.clock.now
    async with fleet.running.database.begin() as tx:
        desired = {"LocalDPR": ("ENABLED", now), "CAName": ("example.com", now)}
        await modules.update(tx, fleet.ids[1], {"desired": desired, "bootstrapped_at": now, "blacklisted": True})

    async def uids(**body: object) -> list[str]:
        found = await ok("/device/info/get", body)
        return [each["ROTPublicUID"] for each in found["DeviceInfo"]]

    assert await uids(ROTPublicUIDs=[UIDS[2], UIDS[0], UIDS[2]]) == [UIDS[2], UIDS[0]], "as they are named, each once"
    assert await uids(TagNames=["downtown", "none"]) == UIDS[1:]
    assert await uids(TagNames=["none"]) == []
    assert await uids(DeviceSerialNumbers=["123234354", "none"]) == [UIDS[2]], "not another account's"
    assert await uids(DeviceSerialNumbers=["none"]) == []
    await fleet.refused("/device/info/get", {"ROTPublicUIDs": [UIDS[0], FOREIGN]}, "ROTPublicUIDs")
    (blacklisted,) = (await ok("/device/info/get", {"ROTPublicUIDs": [UIDS[1]], "Options": None}))["DeviceInfo"]
    assert list(blacklisted) == ["ROTPublicUID", "ROT", "Provisioning", "ZTP"], "all parts, if none is named"
    assert (blacklisted["ROT"]["State"], blacklisted["ROT"]["IsBlacklisted"]) == ("ALLOCATED", True)
    date = wire.write_time(now)
    assert blacklisted["Provisioning"] == {
        "DesiredProperties": {
            "Authorizations": [{"Name": "LocalDPR", "State": "ENABLED", "ModifiedDate": date}],
            "Zerotouch": {"CAName": "example.com", "ModifiedDate": date},
        },
        "CurrentProperties": {},
    }
    (profiled,) = (await ok("/device/info/get", {"ROTPublicUIDs": [UIDS[2]], "Options": ["CORE"]}))["DeviceInfo"]
    assert list(profiled) == ["ROTPublicUID", "ROT"]
    rot = profiled["ROT"]
    assert (rot["DeviceProfileUID"], rot["DeviceSerialNumber"], rot["IMEI"], rot["LastSeen"], rot["State"]) == (
        PROFILE, "123234354", "862618583984360", date, "UNKNOWN"
    )  # fmt: skip


@pytest.mark.server
async def test_notifications(fleet: Fleet) -> None:
    path, api = "/notification/get", fleet.api
    kinds = ("DEVICE_INFO_CHANGE", "DEVICE_ERROR")
    async with fleet.running.database.begin() as tx:
        for number in range(101):
            at = fleet.clock.now - timedelta(days=179) + timedelta(seconds=number)
            await notices.add_notification(tx, fleet.ids[1], kinds[number == 0], {"Error": str(number)}, at)
        await notices.add_notification(tx, fleet.foreign, kinds[0], {}, fleet.clock.now)
    body = {"FromDate": fleet.time(days=180), "ROTPublicUIDs": UIDS}
    found = await api.ok(path, body)
    assert {name: found[name] for name in ("PageNumber", "PageSize", "TotalRecords")} == {
        "PageNumber": 1, "PageSize": 100, "TotalRecords": 101
    }  # fmt: skip
    assert len(found["Notifications"]) == 100
    assert found["Notifications"][0] == {
        "NotificationType": "DEVICE_ERROR", "ROTPublicUID": UIDS[1], "Timestamp": fleet.time(days=179),
        "Payload": {"Error": "0"},
    }  # fmt: skip
    last = await api.ok(path, body | {"PageNumber": 2})
    assert [each["Payload"] for each in last["Notifications"]] == [{"Error": "100"}]
    for number in PAST_THE_END:
        past = await api.ok(path, body | {"PageNumber": number})
        assert past == {"Notifications": [], "PageNumber": number, "PageSize": 100, "TotalRecords": 101}
    assert (await api.ok(path, body | {"NotificationType": "DEVICE_ERROR"}))["TotalRecords"] == 1
    assert (await api.ok(path, body | {"ToDate": fleet.time(days=179, seconds=1)}))["TotalRecords"] == 0
    assert (await api.ok(path, body | {"ToDate": fleet.time(days=179)}))["TotalRecords"] == 1, "the last second counts"
    for tag, total in (("DOWNTOWN", 101), ("none", 0)):
        by_tag = await api.ok(path, {"FromDate": fleet.time(days=180), "TagNames": [tag]})
        assert by_tag["TotalRecords"] == total
    await fleet.refused(path, body | {"FromDate": fleet.time(days=181)}, "FromDate")
    await fleet.refused(path, body | {"FromDate": fleet.time(days=-1)}, "FromDate")
    await fleet.refused(path, body | {"ToDate": fleet.time(days=180, seconds=1)}, "ToDate")
    await fleet.refused(path, body | {"ROTPublicUIDs": [FOREIGN]}, "ROTPublicUIDs")


@pytest.mark.server
async def test_clone_events_and_suspicious_devices(fleet: Fleet) -> None:
    api, database, now = fleet.api, fleet.running.database, fleet.clock.now
    await execute(database, "UPDATE module SET production_serial = 'same' WHERE device_id = ANY($1)", fleet.ids[1:])
    async with database.begin() as tx:
        for device in fleet.ids[1:]:
            await notices.add_clone_event(
                tx, fleet.account.id, device, "COUNTER_REGRESSION", now, source="192.0.2.7", imei="862618583984360"
            )
        await suspicions.add(tx, Doubt.PRODUCTION_SERIAL, [(fleet.account.id, fleet.ids[1], "same")], now)
    expected: list[tuple[dict[str, object], list[str]]] = [
        ({"ROTPublicUIDs": UIDS[:2]}, UIDS[1:2]),
        ({"TagNames": ["downtown"]}, UIDS[1:]),
        ({"TagNames": ["none"]}, []),
        ({"DeviceProfileUID": PROFILE}, UIDS[2:]),
        ({"DeviceProfileUID": UNATTRIBUTED}, UIDS[1:2]),
        ({"DeviceProfileUID": "none"}, []),
    ]
    for body, uids in expected:
        clones = await api.ok("/device/clone/get", {"FromDate": fleet.time(days=1_000), **body})
        assert [each["ROTPublicUID"] for each in clones["ClonedEvents"]] == uids, body
        suspicious = await api.ok("/device/suspicious/get", body)
        assert [each["ROTPublicUID"] for each in suspicious["SuspiciousDevices"]] == uids, body
        assert clones["TotalRecords"] == suspicious["TotalRecords"] == len(uids)
        for number in PAST_THE_END:
            past = await api.ok("/device/suspicious/get", {**body, "PageNumber": number})
            assert past == {
                "SuspiciousDevices": [], "PageNumber": number, "PageSize": 100, "TotalRecords": len(uids)
            }  # fmt: skip
    (one,) = (await api.ok("/device/suspicious/get", {"DeviceProfileUID": PROFILE}))["SuspiciousDevices"]
    assert one == {
        "ROTPublicUID": UIDS[2], "Reasons": ["DUPLICATED_DEV_SERIAL_NUM_PROD_LOG"],
        "DetectedDate": wire.write_time(now), "RelatedROTPublicUIDs": [UIDS[1]],
    }  # fmt: skip
    await fleet.refused("/device/suspicious/get", {"ROTPublicUIDs": [FOREIGN]}, "ROTPublicUIDs")
    await fleet.refused("/device/clone/get", {"TagNames": ["a"], "FromDate": fleet.time(days=-1)}, "FromDate")


@pytest.mark.server
async def test_activities(fleet: Fleet) -> None:
    path, api = "/device/activity/get", fleet.api
    async with fleet.running.database.begin() as tx:
        await notices.add_activity(tx, fleet.ids[2], "HEARTBEAT", fleet.clock.now, details={"Counter": 7})
        await notices.add_activity(
            tx, fleet.ids[2], "SET_HEARTBEAT", fleet.clock.now, result="ERROR", details={"Id": 1, "Error": "no"}
        )
    body = {"FromDate": fleet.time(days=1), "ROTPublicUID": UIDS[2]}
    date = wire.write_time(fleet.clock.now)
    assert await api.ok(path, body) == {
        "LastSeen": date,
        "Activities": [
            {"Timestamp": date, "Command": "HEARTBEAT", "Result": "OK", "Details": {"Counter": 7}},
            {"Timestamp": date, "Command": "SET_HEARTBEAT", "Result": "ERROR", "Details": {"Id": 1, "Error": "no"}},
        ],
        "PageNumber": 1, "PageSize": 100, "TotalRecords": 2,
    }  # fmt: skip
    assert await api.ok(path, body | {"ROTPublicUID": UIDS[0], "PageNumber": 9}) == {
        "LastSeen": None, "Activities": [], "PageNumber": 9, "PageSize": 100, "TotalRecords": 0
    }  # fmt: skip
    await fleet.refused(path, body | {"ROTPublicUID": FOREIGN}, "ROTPublicUID")
    await fleet.refused(path, body | {"ToDate": fleet.time(days=2)}, "ToDate")


@pytest.mark.server
async def test_usage(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    path, api, clock = "/device/usage/get", fleet.api, fleet.clock
    header = {"EncryptedHeader": "1101000089280088621f7593c47f0000"}
    await api.ok("/e2e/uplink/protectionparameters/get", header)
    assert await api.ok(path, {"FromDate": fleet.day(1)}) == {}, "it is not visible yet"
    clock.move(minutes=5)
    async with fleet.running.database.begin() as tx:
        for device, account in ((fleet.ids[2], fleet.account.id), (fleet.foreign, fleet.account.id + 1)):
            await usage.count(tx, account, device, "LocalDPR", clock.now - timedelta(days=2))
    found = await api.ok(path, {"FromDate": fleet.day(1)})
    assert found == {
        "2000089280088": {
            "SymmetricKey": 0, "ProtectionParameters": 1, "LocalDPR": 0, "LocalC2C": 0, "LocalC2CKeyPairing": 0,
            "ZTPV1": 0, "CertificateRenewals": 0, "CertificateUpdates": 0,
        }
    }  # fmt: skip
    wide = {"FromDate": fleet.day(60)}
    assert set(await api.ok(path, wide)) == {"2000089280088", UIDS[2]}
    assert set(await api.ok(path, wide | {"ROTPublicUIDs": [UIDS[0], UIDS[2]]})) == {UIDS[2]}
    assert set(await api.ok(path, wide | {"TagNames": ["downtown"]})) == {"2000089280088", UIDS[2]}
    assert await api.ok(path, wide | {"TagNames": ["none"]}) == {}
    assert set(await api.ok(path, wide | {"ToDate": fleet.day(2)})) == {UIDS[2]}
    await fleet.refused(path, {"FromDate": fleet.day(61)}, "FromDate")
    await fleet.refused(path, {"FromDate": fleet.day(-1)}, "FromDate")
    await fleet.refused(path, wide | {"ToDate": fleet.day(61)}, "ToDate")
    await fleet.refused(path, wide | {"ROTPublicUIDs": [FOREIGN]}, "ROTPublicUIDs")
    monkeypatch.setattr(info, "MOST_USED", 1)
    await fleet.refused(path, wide, "FromDate")
    await fleet.refused(path, wide | {"TagNames": ["downtown"]}, "TagNames")


@pytest.mark.server
async def test_uids_of_profiles_and_tags(fleet: Fleet) -> None:
    path, api = "/device/rotpublicuid/get", fleet.api
    await api.ok("/tag/create", {"TagName": "uptown"})
    await api.ok("/tag/assign", {"TagNames": ["uptown"], "ROTPublicUIDs": UIDS[:2]})
    expected: list[tuple[dict[str, object], list[str]]] = [
        ({"DeviceProfileUID": PROFILE}, UIDS[2:]),
        ({"DeviceProfileUID": UNATTRIBUTED}, UIDS[:2]),
        ({"DeviceProfileUID": "none"}, []),
        ({"TagNames": ["DownTown"]}, UIDS[1:]),
        ({"TagNames": ["downtown", "uptown", "none"]}, UIDS),
        ({"TagNames": ["none"]}, []),
    ]
    for body, uids in expected:
        paging = {"PageSize": 100, "TotalRecords": len(uids)}
        assert await api.ok(path, body) == {"ROTPublicUIDs": uids, "PageNumber": 1, **paging}, body
        for number in PAST_THE_END:
            past = await api.ok(path, {**body, "PageNumber": number})
            assert past == {"ROTPublicUIDs": [], "PageNumber": number, **paging}, body


@pytest.mark.server
async def test_the_version_is_told_to_whoever_has_a_token(running: Running, api: Client) -> None:
    assert await api.ok("/apiversion") == {"Version": "1.1.29"}
    headers = {"Authorization": f"Bearer {api.token}"}
    for path in ("/v1/apiversion", "/apiversion"):
        answer = await api.send(path, b"", headers=headers, method="GET")
        assert (answer.status, answer.body) == (200, {"Version": "1.1.29"})
    async with aiohttp.ClientSession() as nobody, nobody.get(f"{api.url}/apiversion") as refused:
        assert (refused.status, await refused.json()) == (401, {"message": "Not Authorized."})
