"""Tags: names that an account gives to devices and device profiles. Contract: section 4.9."""

from typing import Annotated, Final, TypedDict

from pydantic import Field

from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.ublox import refusals, selection, wire
from provisioning.protocols.ublox.call import Call
from provisioning.protocols.ublox.reading import LONGEST_TAG, MOST, Form, Paged, ProfileUid, TagName, Uids
from provisioning.store import modules, profiles, tags
from provisioning.store.lists import Page
from provisioning.store.tags import Tag

ALL: Final = ["*"]
"""In `/tag/remove`, on either side or on both: all there are."""
MOST_ASSIGNED: Final = 100_000
"""Assignments that one request may ask for, tags times devices: it takes seconds."""
ASSIGNED: Final = "Request aborted. This tag is currently assigned to ROTPublicUID(s)"

NewTagName = Annotated[
    str,
    Field(
        pattern=rf'^[^\^`~<>"{{}}|,\\]{{1,{LONGEST_TAG}}}\Z',
        json_schema_extra={"minLength": 1, "maxLength": LONGEST_TAG},
    ),
]
SomeTags = Annotated[list[TagName], Field(min_length=1, max_length=MOST)]
Wildcard = Annotated[list[Annotated[str, Field(pattern=r"^[*]\Z")]], Field(min_length=1, max_length=1)]
ProfileUids = Annotated[list[ProfileUid], Field(max_length=MOST)]


class CreateTag(Form):
    name: NewTagName = Field(alias="TagName")


class OneTag(Form):
    name: TagName = Field(alias="TagName")


class Assign(Form):
    ONE_OF = (("ROTPublicUIDs", "DeviceProfileUIDs"),)
    tags: SomeTags = Field(alias="TagNames")
    uids: Uids | None = Field(None, alias="ROTPublicUIDs")
    profiles: ProfileUids | None = Field(None, alias="DeviceProfileUIDs")
    sync: bool | None = Field(None, alias="SyncRequired")


class Remove(Form):
    ONE_OF = (("ROTPublicUIDs", "DeviceProfileUIDs"),)
    tags: SomeTags = Field(alias="TagNames")
    uids: Uids | Wildcard | None = Field(None, alias="ROTPublicUIDs")
    profiles: ProfileUids | None = Field(None, alias="DeviceProfileUIDs")
    sync: bool | None = Field(None, alias="SyncRequired")


class TagEntry(TypedDict):
    TagName: str
    CreatedDate: str
    ROTPublicUIDCount: int
    DeviceProfileUIDCount: int


class Tags(wire.Paging):
    Tags: list[TagEntry]


async def create(call: Call, asked: CreateTag) -> None:
    """Raises: Refusal DUPLICATE from the transaction."""
    await tags.add(call.tx, call.account.id, asked.name, wire.fold(asked.name), now=call.now)


async def delete(call: Call, asked: OneTag) -> None:
    """Only devices hold it back; from device profiles it goes.

    Raises:
        Refusal: UNKNOWN; IN_USE: devices have it.
    """
    tag = await tags.hold(call.tx, call.account.id, wire.fold(asked.name))
    if tag is None:
        raise Refusal(Reason.UNKNOWN, tag=asked.name)
    if await tags.has_modules(call.tx, tag):
        raise Refusal(Reason.IN_USE, message=ASSIGNED)
    await tags.delete(call.tx, tag)


async def get(call: Call, asked: Paged) -> Page[Tag]:
    return await tags.page(call.tx, call.account.id, asked.number)


async def assign(call: Call, asked: Assign) -> None:
    """Each tag to each device or device profile. What is so already stays so.

    Raises:
        Refusal: UNKNOWN: no such tag or device profile; DEVICE_UNKNOWN; MALFORMED, field `TagNames`: more than
            `MOST_ASSIGNED`.
    """
    folded = {wire.fold(name) for name in asked.tags}
    if len(folded) * len(asked.uids or asked.profiles or ()) > MOST_ASSIGNED:
        raise refusals.invalid("TagNames")
    found = await tags.keep(call.tx, call.account.id, list(folded))
    if len(found) < len(folded):
        raise Refusal(Reason.UNKNOWN, tags=sorted(folded - {tag.folded for tag in found}))
    tag_ids = [tag.id for tag in found]
    sync = asked.sync or False
    if asked.profiles:
        known = await profiles.find_all(call.tx, call.account.id, asked.profiles)
        if missing := set(asked.profiles) - known.keys():
            raise Refusal(Reason.UNKNOWN, profiles=sorted(missing))
        await tags.assign_profiles(call.tx, tag_ids, [each.id for each in known.values()], sync=sync)
        return
    ids = await selection.ids(call, asked.uids, None)
    await tags.assign_modules(call.tx, tag_ids, ids, sync=sync)


async def remove(call: Call, asked: Remove) -> None:
    """Each tag from each device or device profile. What is not there is ignored, as are names of nothing.

    The single entry `*` means all tags, or all devices or device profiles of the account; on both sides it means every
    assignment to devices, or to device profiles.
    """
    folded = None if asked.tags == ALL else [wire.fold(name) for name in asked.tags]
    if asked.profiles:
        known = await profiles.find_all(call.tx, call.account.id, asked.profiles)
        profile_ids = None if asked.profiles == ALL else [each.id for each in known.values()]
        await tags.remove_profiles(call.tx, call.account.id, folded, profile_ids)
    else:
        found = await modules.ids(call.tx, call.account.id, asked.uids or ())
        await tags.remove_modules(call.tx, call.account.id, folded, None if asked.uids == ALL else list(found.values()))


def write_tags(found: Page[Tag]) -> Tags:
    return {"Tags": [_write_tag(tag) for tag in found.records], **wire.write_paging(found.number, found.total)}


def _write_tag(tag: Tag) -> TagEntry:
    return {
        "TagName": tag.name,
        "CreatedDate": wire.write_time(tag.created_at),
        "ROTPublicUIDCount": tag.modules,
        "DeviceProfileUIDCount": tag.profiles,
    }
