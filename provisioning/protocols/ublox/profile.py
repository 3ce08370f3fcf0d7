"""Device profiles, and what their devices get when they bootstrap. Contract: sections 3, 4.2 and 5."""

from typing import Annotated, Final, TypedDict

from pydantic import Field

from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.ublox import provisioning, wire
from provisioning.protocols.ublox.call import Call
from provisioning.protocols.ublox.provisioning import Provisioning, Wanted
from provisioning.protocols.ublox.reading import Form, Paged, ProfileUid, TagNames
from provisioning.store import profiles, roots
from provisioning.store.lists import Page
from provisioning.store.profiles import Profile

LONGEST_NAME: Final = 4_096


class GetProfiles(Paged):
    AT_MOST_ONE_OF = (("TagNames", "ProfileName"),)
    tags: TagNames | None = Field(None, alias="TagNames")
    name: Annotated[str, Field(max_length=LONGEST_NAME)] | None = Field(None, alias="ProfileName")


class OneProfile(Form):
    uid: ProfileUid = Field(alias="DeviceProfileUID")


class SetBootstrapProvisioning(OneProfile):
    wanted: Provisioning = Field(alias="Provisioning")


class DeviceProfile(TypedDict):
    DeviceProfileUID: str
    ProfileName: str
    CreatedDate: str
    WhitelistCheck: bool
    DeviceCount: int
    TagNames: list[str]
    CAName: str | None


class DeviceProfiles(wire.Paging):
    DeviceProfiles: list[DeviceProfile]


class BootstrapProvisioning(TypedDict):
    DeviceProfileUID: str
    DesiredProperties: wire.PropertySet


async def get_profiles(call: Call, asked: GetProfiles) -> Page[Profile]:
    if asked.tags:
        folded = [wire.fold(name) for name in asked.tags]
        return await profiles.page_tagged(call.tx, call.account.id, asked.number, folded)
    return await profiles.page(call.tx, call.account.id, asked.number, name=asked.name or None)


async def set_bootstrap_provisioning(call: Call, asked: SetBootstrapProvisioning) -> None:
    root_ca_id = await find_root_ca(call, asked.wanted)
    profile = await _hold(call, asked.uid)
    desired = provisioning.merge(profile.desired, asked.wanted, call.now)
    await profiles.provision(call.tx, profile, desired, root_ca_id or profile.root_ca_id)


async def get_bootstrap_provisioning(call: Call, asked: OneProfile) -> Profile:
    if found := await profiles.find(call.tx, call.account.id, asked.uid):
        return found
    raise Refusal(Reason.UNKNOWN, profile=asked.uid)


async def delete_bootstrap_provisioning(call: Call, asked: OneProfile) -> None:
    await profiles.provision(call.tx, await _hold(call, asked.uid), {}, None)


async def find_root_ca(call: Call, wanted: Wanted) -> int | None:
    """Id of the root CA that is wanted, which nobody deletes until the transaction ends; None: none is.

    Raises:
        Refusal: UNKNOWN: the account has none of that name.
    """
    if wire.CA_NAME not in wanted:
        return None
    name = str(wanted[wire.CA_NAME])
    if found := await roots.keep(call.tx, call.account.id, name):
        return found.id
    raise Refusal(Reason.UNKNOWN, authority=name)


async def _hold(call: Call, uid: str) -> Profile:
    if found := await profiles.hold(call.tx, call.account.id, uid):
        return found
    raise Refusal(Reason.UNKNOWN, profile=uid)


def write_profiles(found: Page[Profile]) -> DeviceProfiles:
    return {
        "DeviceProfiles": [_write_profile(each) for each in found.records],
        **wire.write_paging(found.number, found.total),
    }


def _write_profile(profile: Profile) -> DeviceProfile:
    root_ca = profile.desired.get(wire.CA_NAME)
    return {
        "DeviceProfileUID": profile.key,
        "ProfileName": profile.name,
        "CreatedDate": wire.write_time(profile.created_at),
        "WhitelistCheck": profile.whitelist_check,
        "DeviceCount": profile.devices,
        "TagNames": list(profile.tags),
        "CAName": str(root_ca[0]) if root_ca else None,
    }


def write_bootstrap_provisioning(profile: Profile) -> BootstrapProvisioning:
    return {"DeviceProfileUID": profile.key, "DesiredProperties": wire.write_desired(profile.desired)}
