"""Devices, whitelist, provisioning: contract, section 4.3."""

import asyncio
import io
from typing import Any

import pytest

from provisioning.app import Running
from provisioning.model.account import Account
from provisioning.protocols.ublox import selection, wire
from provisioning.store import modules
from tests.provisioning.store.registry import execute
from tests.provisioning.store.test_lists import ADD_ROOT_CA
from tests.ublox import OTHER_KEY, PROFILE, Answer, Client, Clock, client, make_account, make_devices, make_profile

A, B, C = "0002000089280087", "0002000100003fff", "0002000100004000"
FOREIGN, NOBODYS = "00000000000000ff", "00000000000000fe"
IMEI = "862618583984360"
LIST, ADD, WHITELIST = "/device/list/get", "/device/whitelist/add", "/device/whitelist/get"
SET, GET, DELETE = (f"/device/provisioning/{verb}" for verb in ("set", "get", "delete"))
INVALID = "Bad Request. Invalid ROTPublicUIDs"


@pytest.fixture
async def fleet(running: Running, account: Account) -> list[int]:
    """Three modules of the account, one of another. Ids of the three."""
    other = await make_account(running.database, OTHER_KEY)
    await make_devices(running.database, other, [FOREIGN])
    await execute(running.database, ADD_ROOT_CA, other.id, "theirs", running.world.clock())
    await execute(running.database, ADD_ROOT_CA, account.id, "example.com", running.world.clock())
    return await make_devices(running.database, account, [A, B, C])


async def upload(api: Client, text: str, content_type: str = "application/octet-stream") -> Answer:
    headers = {"Content-Type": content_type, "Authorization": f"Bearer {api.token}"}
    async with api.http.post(f"{api.url}/v1{ADD}", data=io.BytesIO(text.encode()), headers=headers) as response:
        return Answer(response.status, await response.json())


async def listed(api: Client, which: str) -> list[str]:
    found = await api.ok(LIST, {"Filter": which})
    assert found["TotalRecords"] == len(found["ROTPublicUIDs"])
    return list(found["ROTPublicUIDs"])


async def test_devices_are_listed_by_filter(api: Client, fleet: list[int], running: Running) -> None:
    await execute(running.database, "UPDATE module SET bootstrapped_at = now(), blacklisted = true WHERE uid = $1", B)
    everything = {"ROTPublicUIDs": [A, B, C], "PageNumber": 1, "PageSize": 100, "TotalRecords": 3}
    assert await api.ok(LIST) == everything
    assert await api.ok(LIST, {"Filter": "ALL", "PageNumber": 1.0}) == everything
    assert await listed(api, "BLACKLISTED") == [B]
    assert await api.ok(ADD, {"ROTPublicUIDs": [B, A]}) == {"Message": "Request Successful"}
    assert (await listed(api, "WHITELISTED"), await listed(api, "BLACKLISTED")) == ([A, B], [])
    await api.ok(ADD, {"ROTPublicUIDs": [A, B], "Action": "DELETE"})
    assert (await listed(api, "WHITELISTED"), await listed(api, "BLACKLISTED")) == ([], [B])
    assert (await api.ok(LIST, {"PageNumber": 10**18}))["ROTPublicUIDs"] == []
    await api.refused(LIST, {"Filter": "all"}, 400, "Bad Request. Invalid Filter")
    await api.refused(LIST, {"PageNumber": "1"}, 400, "Bad Request. Invalid PageNumber")


async def test_the_whitelist_is_read_with_device_profiles(
    api: Client, account: Account, fleet: list[int], running: Running
) -> None:
    clock = Clock()
    clock.set_on(running)
    profile = await make_profile(running.database, account)
    await execute(running.database, "UPDATE module SET profile_id = $1, imei = $2 WHERE uid = $3", profile, IMEI, A)
    await api.ok(ADD, {"ROTPublicUIDs": [int(NOBODYS, 16), A[3:].upper()], "IMEIs": [IMEI]})
    created = {"CreatedDate": wire.write_time(clock())}
    assert await api.ok(WHITELIST) == {
        "DeviceWhitelist": [
            {"Id": "0000000000000254", "Type": "ROTPublicUID", **created, "DeviceProfileUID": None},
            {"Id": A, "Type": "ROTPublicUID", **created, "DeviceProfileUID": PROFILE},
            {"Id": IMEI, "Type": "IMEI", **created, "DeviceProfileUID": PROFILE},
        ],
        "PageNumber": 1,
        "PageSize": 100,
        "TotalRecords": 3,
    }
    past = await api.ok(WHITELIST, {"PageNumber": 2})
    assert past == {"DeviceWhitelist": [], "PageNumber": 2, "PageSize": 100, "TotalRecords": 3}


async def test_the_whitelist_takes_files(api: Client, fleet: list[int]) -> None:
    await api.ok(ADD, {"ROTPublicUIDs": [C]})
    text = f"\ufeffId,Type,Action\r\n{A},ROTPublicUID,ADD\r\n{NOBODYS},ROTPublicUID,add\r\n{C},ROTPublicUID,DELETED\r\n"
    answer = await upload(api, text)
    assert (answer.status, answer.body) == (200, {"Message": "Request Successful"})
    assert await listed(api, "WHITELISTED") == [A]
    entries = [entry["Id"] for entry in (await api.ok(WHITELIST))["DeviceWhitelist"]]
    assert sorted(entries) == [NOBODYS, A], "uids that nobody has yet may stand on it"
    for wrong, message in (
        (f"Id,Type,Action\n{B},ROTPublicUID,ADD\n{A},ROTPublicUID,KEEP\n", "Bad Request. Invalid Action"),
        (f"Id,Type,Action\n{B},ROTPublicUID,ADD\n{FOREIGN},ROTPublicUID,ADD\n", INVALID),
        ("Id,Type,Action\n", "Bad Request"),
        ("", "Bad Request"),
    ):
        answer = await upload(api, wrong)
        assert (answer.status, answer.body) == (400, {"Message": message}), wrong
    assert await listed(api, "WHITELISTED") == [A], "one bad row refuses the file"
    assert (await upload(api, text, "text/csv")).status == 415


async def test_a_large_file_is_one_change(api: Client, running: Running) -> None:
    rows = "".join(f"{number:016},ROTPublicUID,ADD\n" for number in range(4_000))
    assert (await upload(api, f"Id,Type,Action\n{rows}")).status == 200
    assert (await api.ok(WHITELIST, {"PageNumber": 40}))["DeviceWhitelist"][99]["Id"] == f"{3_999:016}"
    too_large = await upload(api, "Id,Type,Action\n" + rows * 9)
    assert (too_large.status, too_large.body) == (413, {"message": "Payload Too Large"})


async def test_whitelists_refuse_what_they_should(api: Client, fleet: list[int]) -> None:
    for body, message in (
        ({}, "Bad Request"),
        ({"ROTPublicUIDs": [], "IMEIs": []}, "Bad Request"),
        ({"ROTPublicUIDs": ["g"]}, INVALID),
        ({"ROTPublicUIDs": [A, FOREIGN]}, INVALID),
        ({"ROTPublicUIDs": [FOREIGN], "Action": "DELETE"}, INVALID),
        ({"IMEIs": ["123"]}, "Bad Request. Invalid IMEIs"),
        ({"ROTPublicUIDs": [A], "Action": "REMOVE"}, "Bad Request. Invalid Action"),
    ):
        answer = await api.post(ADD, body)
        assert (answer.status, answer.body) == (400, {"Message": message}), body
    assert (await api.ok(WHITELIST))["TotalRecords"] == 0


async def desired(api: Client, *uids: str) -> list[Any]:
    return [each["DesiredProperties"] for each in await api.ok(GET, {"ROTPublicUIDs": list(uids)})]


async def test_provisioning_is_set_by_uid_got_and_deleted(api: Client, fleet: list[int], running: Running) -> None:
    clock = Clock()
    clock.set_on(running)
    provisioning = {"LocalDPR": "ENABLED", "SecurityHeartbeatInSec": 86400, "CAName": "example.com"}
    answer = await api.ok(SET, {"ROTPublicUIDs": [B, A, B], "Provisioning": provisioning})
    assert answer == {"Message": "Request Successful"}
    then = wire.write_time(clock())
    clock.move(minutes=30)
    await api.ok(SET, {"ROTPublicUIDs": [A], "Provisioning": {"LocalDPR": "ENABLED", "ZTPV1": "ENABLED"}})
    now = wire.write_time(clock())
    rest = {
        "NetworkParameters": [{"Name": "SecurityHeartbeatInSec", "Value": 86400, "ModifiedDate": then}],
        "Zerotouch": {"CAName": "example.com", "ModifiedDate": then},
    }
    local = {"Name": "LocalDPR", "State": "ENABLED", "ModifiedDate": then}
    ztp = {"Name": "ZTPV1", "State": "ENABLED", "ModifiedDate": now}
    assert await api.ok(GET, {"ROTPublicUIDs": [C, A, B]}) == [
        {"ROTPublicUID": C, "DesiredProperties": {}},
        {"ROTPublicUID": A, "DesiredProperties": {"Authorizations": [local, ztp], **rest}},
        {"ROTPublicUID": B, "DesiredProperties": {"Authorizations": [local], **rest}},
    ], "in the order of the question"
    assert await api.ok(DELETE, {"ROTPublicUIDs": [A, C]}) == {"message": "Request Successful"}
    assert await desired(api, A, B, C) == [{}, {"Authorizations": [local], **rest}, {}]
    async with running.database.read() as tx:
        found = await modules.by_ids(tx, fleet)
    assert [each.desired_ca is None for each in found] == [True, False, True]


async def test_provisioning_is_set_by_tag(api: Client, fleet: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, uids in (("a", [A, B]), ("b", [B, C]), ("none", [])):
        await api.ok("/tag/create", {"TagName": name})
        if uids:
            await api.ok("/tag/assign", {"TagNames": [name], "ROTPublicUIDs": uids})
    on = {"Provisioning": {"LocalDPR": "ENABLED"}}
    await api.ok(SET, {"TagNames": ["A", "none"]} | on)
    states = [bool(each) for each in await desired(api, A, B, C)]
    assert states == [True, True, False]
    assert [each["ROTPublicUID"] for each in await api.ok(GET, {"TagNames": ["b", "a", "B"]})] == [A, B, C]
    assert await api.ok(GET, {"TagNames": ["none", "unknown"]}) == []
    await api.ok(SET, {"TagNames": ["none"]} | on)
    await api.ok(DELETE, {"TagNames": ["b"]})
    assert [bool(each) for each in await desired(api, A, B, C)] == [True, False, False]
    await api.refused(SET, {"TagNames": ["a", "unknown"]} | on, 404, "Not Found")
    await api.refused(DELETE, {"TagNames": ["unknown"]}, 404, "Not Found")
    monkeypatch.setattr(selection, "MOST_CHANGED", 1)
    await api.refused(DELETE, {"TagNames": ["a"]}, 400, "Bad Request. Invalid TagNames")


async def test_provisioning_refuses_what_it_should(api: Client, fleet: list[int]) -> None:
    on = {"Provisioning": {"LocalDPR": "ENABLED"}}
    for body, status, message in (
        ({"ROTPublicUIDs": [A]}, 400, "Bad Request"),
        (on, 400, "Bad Request"),
        ({"ROTPublicUIDs": [A], "TagNames": ["a"]} | on, 400, "Bad Request"),
        ({"ROTPublicUIDs": [A, FOREIGN]} | on, 400, INVALID),
        ({"ROTPublicUIDs": [A, NOBODYS]} | on, 400, INVALID),
        ({"ROTPublicUIDs": [A], "Provisioning": {"Evaluation": "ENABLED"}}, 400, "Bad Request. Invalid Provisioning"),
        ({"ROTPublicUIDs": [A], "Provisioning": {"CAName": "theirs"}}, 404, "Not Found"),
    ):
        answer = await api.post(SET, body)
        assert (answer.status, answer.body) == (status, {"Message": message}), body
    for path in (GET, DELETE):
        await api.refused(path, {}, 400, "Bad Request")
        for uid in (FOREIGN, NOBODYS):
            await api.refused(path, {"ROTPublicUIDs": [A, uid]}, 400, INVALID)
    assert await desired(api, A, B, C) == [{}, {}, {}]


async def test_applications_may_all_come_at_once(api: Client, fleet: list[int], running: Running) -> None:
    """Two accounts of the same devices there are none: who waits for whom is one account's applications."""
    names = ("LocalDPR", "LocalC2C", "LocalC2CKeyPairing", "ZTPV1")
    uids = [A, B, C]
    answers = await asyncio.gather(
        *(api.post(SET, {"ROTPublicUIDs": uids[::step], "Provisioning": {name: "ENABLED"}})
          for name in names for step in (1, -1)),
        *(api.post(ADD, {"ROTPublicUIDs": uids[::step]}) for step in (1, -1) for _ in range(3)),
    )  # fmt: skip
    assert {answer.status for answer in answers} == {200}
    for each in await desired(api, *uids):
        assert [one["Name"] for one in each["Authorizations"]] == list(names)
    assert await listed(api, "WHITELISTED") == uids


async def test_another_account_sees_nothing_of_it(api: Client, fleet: list[int], running: Running) -> None:
    await api.ok(ADD, {"ROTPublicUIDs": [A, NOBODYS], "IMEIs": [IMEI]})
    async with client(running) as other:
        await other.authenticate(OTHER_KEY)
        assert await listed(other, "ALL") == [FOREIGN]
        assert await listed(other, "WHITELISTED") == []
        assert (await other.ok(WHITELIST))["TotalRecords"] == 0
        await other.ok(ADD, {"ROTPublicUIDs": [NOBODYS], "IMEIs": [IMEI], "Action": "DELETE"})
    assert (await api.ok(WHITELIST))["TotalRecords"] == 3
