"""Device profiles: contract, section 4.2."""

import pytest

from provisioning.app import Running
from provisioning.model.account import Account
from provisioning.protocols.ublox import wire
from tests.provisioning.store.registry import execute
from tests.provisioning.store.test_lists import ADD_ROOT_CA
from tests.ublox import (
    OTHER_KEY,
    PROFILE,
    Client,
    Clock,
    client,
    make_account,
    make_devices,
    make_profile,
)

OTHER_PROFILE = "AyvylmHVdUiHQzUaCjOmC"
SET, GET, DELETE = (f"/deviceprofile/bootstrapprovisioning/{verb}" for verb in ("set", "get", "delete"))


async def test_profiles_are_listed(api: Client, account: Account, running: Running) -> None:
    eu = await make_profile(running.database, account)
    await make_profile(running.database, account, OTHER_PROFILE, name="Meters-EU", whitelist_check=False)
    await make_profile(running.database, await make_account(running.database, OTHER_KEY), "someone-elses-profile1")
    await make_devices(running.database, account, ["0000000000000001"])
    await execute(running.database, "UPDATE module SET profile_id = $1", eu)
    await execute(running.database, ADD_ROOT_CA, account.id, "example.com", running.world.clock())
    await execute(running.database, "UPDATE enrolment_group SET created_at = '2020-04-20T19:00:36Z'")
    for name in ("downtown", "Uptown"):
        await api.ok("/tag/create", {"TagName": name})
    await api.ok("/tag/assign", {"TagNames": ["uptown", "downtown"], "DeviceProfileUIDs": [PROFILE]})
    await api.ok(SET, {"DeviceProfileUID": PROFILE, "Provisioning": {"CAName": "example.com"}})
    of_eu = {
        "DeviceProfileUID": PROFILE, "ProfileName": "meters-eu", "CreatedDate": "2020-04-20T19:00:36Z",
        "WhitelistCheck": True, "DeviceCount": 1, "TagNames": ["downtown", "Uptown"], "CAName": "example.com",
    }  # fmt: skip
    of_other = {
        "DeviceProfileUID": OTHER_PROFILE, "ProfileName": "Meters-EU", "CreatedDate": "2020-04-20T19:00:36Z",
        "WhitelistCheck": False, "DeviceCount": 0, "TagNames": [], "CAName": None,
    }  # fmt: skip
    for asked, expected in (
        ({}, [of_eu, of_other]),
        ({"TagNames": [], "ProfileName": ""}, [of_eu, of_other]),
        ({"ProfileName": "meters-eu"}, [of_eu]),
        ({"ProfileName": "METERS-EU"}, []),
        ({"TagNames": ["DOWNTOWN", "unknown"]}, [of_eu]),
        ({"TagNames": ["unknown"]}, []),
    ):
        paging = {"PageNumber": 1, "PageSize": 100, "TotalRecords": len(expected)}
        assert await api.ok("/deviceprofile/get", asked) == {"DeviceProfiles": expected, **paging}, asked
    past = await api.ok("/deviceprofile/get", {"PageNumber": 10**9})
    assert past == {"DeviceProfiles": [], "PageNumber": 10**9, "PageSize": 100, "TotalRecords": 2}
    both = {"TagNames": ["downtown"], "ProfileName": "meters-eu"}
    await api.refused("/deviceprofile/get", both, 400, "Bad Request")
    await api.refused("/deviceprofile/get", {"PageNumber": 0}, 400, "Bad Request. Invalid PageNumber")


async def test_provisioning_for_bootstraps_is_set_got_and_deleted(
    api: Client, account: Account, running: Running
) -> None:
    clock = Clock()
    clock.set_on(running)
    await make_profile(running.database, account)
    await execute(running.database, ADD_ROOT_CA, account.id, "example.com", clock())
    one = {"DeviceProfileUID": PROFILE}
    assert await api.ok(GET, one) == {"DeviceProfileUID": PROFILE, "DesiredProperties": {}}
    provisioning = {
        "Authorizations": [{"Name": "ZTPV1", "State": "ENABLED"}, {"Name": "LocalDPR", "State": "ENABLED"}],
        "NetworkParameters": [{"Name": "SecurityHeartbeatInSec", "Value": 86400}],
        "Zerotouch": {"CAName": "example.com"},
    }
    assert await api.ok(SET, one | {"Provisioning": provisioning}) == {"message": "Request Successful"}
    then = wire.write_time(clock())
    clock.move(minutes=5)
    await api.ok(SET, one | {"Provisioning": {"ZTPV1": "ENABLED", "LocalDPR": "DISABLED"}})
    now = wire.write_time(clock())
    assert await api.ok(GET, one) == {
        "DeviceProfileUID": PROFILE,
        "DesiredProperties": {
            "Authorizations": [
                {"Name": "LocalDPR", "State": "DISABLED", "ModifiedDate": now},
                {"Name": "ZTPV1", "State": "ENABLED", "ModifiedDate": then},
            ],
            "NetworkParameters": [{"Name": "SecurityHeartbeatInSec", "Value": 86400, "ModifiedDate": then}],
            "Zerotouch": {"CAName": "example.com", "ModifiedDate": then},
        },
    }
    async with running.database.read() as tx:
        linked = "SELECT count(*) FROM device_profile WHERE root_ca_id IS NOT NULL"
        assert await tx.db.fetchval(linked) == 1, "the root CA stays linked when something else changes"
        assert await api.ok(DELETE, one) == {"message": "Request Successful"}
        assert await tx.db.fetchval(linked) == 0
    assert await api.ok(GET, one) == {"DeviceProfileUID": PROFILE, "DesiredProperties": {}}


@pytest.mark.parametrize("path", [SET, GET, DELETE])
async def test_only_an_account_has_its_profiles(path: str, api: Client, account: Account, running: Running) -> None:
    await make_profile(running.database, account)
    await make_account(running.database, OTHER_KEY)
    wanted = {"Provisioning": {"LocalDPR": "ENABLED"}}
    async with client(running) as other:
        await other.authenticate(OTHER_KEY)
        for uid in (PROFILE, OTHER_PROFILE, wire.UNATTRIBUTED):
            await other.refused(path, {"DeviceProfileUID": uid} | wanted, 404, "Not Found")
    await api.refused(path, wanted, 400, "Bad Request")
    await api.refused(path, {"DeviceProfileUID": ""} | wanted, 400, "Bad Request. Invalid DeviceProfileUID")
    await api.ok(path, {"DeviceProfileUID": PROFILE} | wanted)


async def test_what_cannot_be_set_is_refused(api: Client, account: Account, running: Running) -> None:
    await make_profile(running.database, account)
    other = await make_account(running.database, OTHER_KEY)
    await execute(running.database, ADD_ROOT_CA, other.id, "theirs", running.world.clock())
    one = {"DeviceProfileUID": PROFILE}
    await api.refused(SET, one, 400, "Bad Request")
    await api.refused(SET, one | {"Provisioning": {}}, 400, "Bad Request. Invalid Provisioning")
    for name in ("theirs", "nobodys"):
        await api.refused(SET, one | {"Provisioning": {"LocalDPR": "ENABLED", "CAName": name}}, 404, "Not Found")
    assert (await api.ok(GET, one))["DesiredProperties"] == {}
