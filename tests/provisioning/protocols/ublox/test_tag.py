"""Tags: contract, section 4.9."""

import pytest

from provisioning.app import Running
from provisioning.model.account import Account
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.ublox import tag, wire
from provisioning.protocols.ublox.tag import CreateTag, Remove
from tests.ublox import OTHER_KEY, PROFILE, Client, Clock, client, make_account, make_devices, make_profile

A, B = "0002000089280087", "0002000100003fff"
FOREIGN, NOBODYS = "00000000000000ff", "00000000000000fe"
OTHER_PROFILE = "AyvylmHVdUiHQzUaCjOmC"
CREATE, DELETE, GET, ASSIGN, REMOVE = (f"/tag/{verb}" for verb in ("create", "delete", "get", "assign", "remove"))
ASSIGNED = "Request aborted. This tag is currently assigned to ROTPublicUID(s)"


@pytest.fixture
async def things(running: Running, account: Account) -> None:
    """Two modules and two device profiles of the account, one of each of another, and tags."""
    other = await make_account(running.database, OTHER_KEY)
    await make_devices(running.database, other, [FOREIGN])
    await make_profile(running.database, other, "someone-elses-profile1")
    await make_devices(running.database, account, [A, B])
    await make_profile(running.database, account)
    await make_profile(running.database, account, OTHER_PROFILE)


async def counts(api: Client) -> dict[str, tuple[int, int]]:
    found = await api.ok(GET)
    assert found["TotalRecords"] == len(found["Tags"])
    return {each["TagName"]: (each["ROTPublicUIDCount"], each["DeviceProfileUIDCount"]) for each in found["Tags"]}


@pytest.mark.parametrize("name", ["downtown", "*", " ", "a b", "ä/ö:ü", "😀" * 255, "a\tb", "'; DROP TABLE tag;--"])
def test_names_may_be_nearly_anything(name: str) -> None:
    assert CreateTag.read({"TagName": name}).name == name


@pytest.mark.parametrize(
    "name", ["", "a" * 256, *(f"a{character}b" for character in '^`~<>"{}|,\\'), 1, None, ["a"], {}]
)
def test_some_names_may_not_be(name: object) -> None:
    with pytest.raises(Refusal) as caught:
        CreateTag.read({"TagName": name})
    assert (caught.value.reason, caught.value.detail) == (Reason.MALFORMED, {"field": "TagName"})


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        ({"TagNames": ["a"]}, Reason.MISSING, None),
        ({"ROTPublicUIDs": ["1"]}, Reason.MISSING, "TagNames"),
        ({"TagNames": [], "ROTPublicUIDs": ["1"]}, Reason.MALFORMED, "TagNames"),
        ({"TagNames": "*", "ROTPublicUIDs": ["1"]}, Reason.MALFORMED, "TagNames"),
        ({"TagNames": ["a"], "ROTPublicUIDs": ["1"], "DeviceProfileUIDs": ["p"]}, Reason.MISSING, None),
        ({"TagNames": ["a"], "ROTPublicUIDs": ["x"]}, Reason.MALFORMED, "ROTPublicUIDs"),
        ({"TagNames": ["a"], "ROTPublicUIDs": ["*", "1"]}, Reason.MALFORMED, "ROTPublicUIDs"),
        ({"TagNames": ["a"], "ROTPublicUIDs": "*"}, Reason.MALFORMED, "ROTPublicUIDs"),
        ({"TagNames": ["a"], "DeviceProfileUIDs": [1]}, Reason.MALFORMED, "DeviceProfileUIDs"),
        ({"TagNames": ["a"], "ROTPublicUIDs": ["1"], "SyncRequired": "yes"}, Reason.MALFORMED, "SyncRequired"),
    ],
)
def test_removals_that_do_not_fit_are_refused(body: object, reason: Reason, field: str | None) -> None:
    with pytest.raises(Refusal) as caught:
        Remove.read(body)
    assert (caught.value.reason, caught.value.detail.get("field")) == (reason, field)


async def test_a_tag_is_created_once_listed_and_deleted(api: Client, things: None, running: Running) -> None:
    clock = Clock()
    clock.set_on(running)
    assert await api.ok(CREATE, {"TagName": "Downtown"}) == {"message": "Request Successful"}
    entry = {"CreatedDate": wire.write_time(clock()), "ROTPublicUIDCount": 0, "DeviceProfileUIDCount": 0}
    assert await api.ok(GET) == {
        "Tags": [{"TagName": "Downtown", **entry}], "PageNumber": 1, "PageSize": 100, "TotalRecords": 1,
    }  # fmt: skip
    await api.refused(CREATE, {"TagName": "DOWNTOWN"}, 409, "Bad Request. TagName already exists")
    await api.refused(CREATE, {}, 400, "Bad Request")
    await api.refused(CREATE, {"TagName": "a,b"}, 400, "Bad Request. Invalid TagName")
    await api.ok(ASSIGN, {"TagNames": ["downTOWN"], "ROTPublicUIDs": [A]})
    await api.ok(ASSIGN, {"TagNames": ["downtown"], "DeviceProfileUIDs": [PROFILE], "SyncRequired": True})
    await api.refused(DELETE, {"TagName": "downtown"}, 400, ASSIGNED)
    await api.ok(REMOVE, {"TagNames": ["downtown"], "ROTPublicUIDs": [A]})
    assert await api.ok(DELETE, {"TagName": "DownTown"}) == {"message": "Request Successful"}
    assert (await api.ok("/deviceprofile/get"))["DeviceProfiles"][0]["TagNames"] == [], "it went from the profile too"
    await api.refused(DELETE, {"TagName": "downtown"}, 404, "Not Found")
    past = await api.ok(GET, {"PageNumber": 10**18})
    assert past == {"Tags": [], "PageNumber": 10**18, "PageSize": 100, "TotalRecords": 0}


async def test_every_tag_is_assigned_to_everything(api: Client, things: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        await api.ok(CREATE, {"TagName": name})
    assert await api.ok(ASSIGN, {"TagNames": ["A", "b", "a"], "ROTPublicUIDs": [A, B, A]}) == {
        "message": "Request Successful"
    }
    await api.ok(ASSIGN, {"TagNames": ["a"], "ROTPublicUIDs": [B]})
    await api.ok(ASSIGN, {"TagNames": ["b"], "DeviceProfileUIDs": [PROFILE, OTHER_PROFILE]})
    before = await counts(api)
    assert before == {"a": (2, 0), "b": (2, 2)}
    invalid = "Bad Request. Invalid ROTPublicUIDs"
    for body, status, message in (
        ({"TagNames": ["a", "unknown"], "ROTPublicUIDs": [A]}, 404, "Not Found"),
        ({"TagNames": ["a"], "ROTPublicUIDs": [A, FOREIGN]}, 400, invalid),
        ({"TagNames": ["a"], "ROTPublicUIDs": [A, NOBODYS]}, 400, invalid),
        ({"TagNames": ["a"], "ROTPublicUIDs": ["*"]}, 400, invalid),
        ({"TagNames": ["a"], "DeviceProfileUIDs": [PROFILE, "unknown"]}, 404, "Not Found"),
        ({"TagNames": ["a"], "DeviceProfileUIDs": ["someone-elses-profile1"]}, 404, "Not Found"),
        ({"TagNames": ["a"]}, 400, "Bad Request"),
        ({"TagNames": ["*"], "ROTPublicUIDs": [A]}, 404, "Not Found"),
    ):
        await api.refused(ASSIGN, body, status, message)
    monkeypatch.setattr(tag, "MOST_ASSIGNED", 3)
    too_many = {"TagNames": ["a", "b"], "ROTPublicUIDs": [A, B]}
    await api.refused(ASSIGN, too_many, 400, "Bad Request. Invalid TagNames")
    assert await counts(api) == before


async def test_tags_are_removed_by_name_or_all_of_them(api: Client, things: None) -> None:
    for name in ("a", "b", "*"):
        await api.ok(CREATE, {"TagName": name})
    everything = {"TagNames": ["a", "b", "*"]}
    uids, profiles = {"ROTPublicUIDs": [A, B]}, {"DeviceProfileUIDs": [PROFILE, OTHER_PROFILE]}
    for body, expected in (
        ({"TagNames": ["A", "unknown"], "ROTPublicUIDs": [A, FOREIGN, NOBODYS]},
         {"a": (1, 2), "b": (2, 2), "*": (2, 2)}),
        ({"TagNames": ["a"], "DeviceProfileUIDs": [PROFILE, "unknown"]}, {"a": (2, 1), "b": (2, 2), "*": (2, 2)}),
        ({"TagNames": ["*"], "ROTPublicUIDs": [A]}, {"a": (1, 2), "b": (1, 2), "*": (1, 2)}),
        ({"TagNames": ["*", "*"], "ROTPublicUIDs": [A]}, {"a": (2, 2), "b": (2, 2), "*": (1, 2)}),
        ({"TagNames": ["a", "b"], "ROTPublicUIDs": ["*"]}, {"a": (0, 2), "b": (0, 2), "*": (2, 2)}),
        ({"TagNames": ["*"], "ROTPublicUIDs": ["*"]}, {"a": (0, 2), "b": (0, 2), "*": (0, 2)}),
        ({"TagNames": ["*"], "DeviceProfileUIDs": [PROFILE]}, {"a": (2, 1), "b": (2, 1), "*": (2, 1)}),
        ({"TagNames": ["a"], "DeviceProfileUIDs": ["*"]}, {"a": (2, 0), "b": (2, 2), "*": (2, 2)}),
        ({"TagNames": ["*"], "DeviceProfileUIDs": ["*"]}, {"a": (2, 0), "b": (2, 0), "*": (2, 0)}),
        ({"TagNames": ["unknown"], "ROTPublicUIDs": ["*"]}, {"a": (2, 2), "b": (2, 2), "*": (2, 2)}),
        ({"TagNames": ["*"], "ROTPublicUIDs": [NOBODYS, FOREIGN]}, {"a": (2, 2), "b": (2, 2), "*": (2, 2)}),
    ):  # fmt: skip
        await api.ok(ASSIGN, everything | uids)
        await api.ok(ASSIGN, everything | profiles)
        assert await api.ok(REMOVE, body) == {"message": "Request Successful"}
        assert await counts(api) == expected, body


async def test_tags_of_another_account_are_out_of_reach(api: Client, things: None, running: Running) -> None:
    await api.ok(CREATE, {"TagName": "mine"})
    await api.ok(ASSIGN, {"TagNames": ["mine"], "ROTPublicUIDs": [A]})
    async with client(running) as other:
        await other.authenticate(OTHER_KEY)
        assert await counts(other) == {}
        await other.refused(DELETE, {"TagName": "mine"}, 404, "Not Found")
        await other.refused(ASSIGN, {"TagNames": ["mine"], "ROTPublicUIDs": [FOREIGN]}, 404, "Not Found")
        for names in (["mine"], ["*"]):
            for uids in ([A], ["*"]):
                await other.ok(REMOVE, {"TagNames": names, "ROTPublicUIDs": uids})
        await other.ok(CREATE, {"TagName": "MINE"})
    assert await counts(api) == {"mine": (1, 0)}
