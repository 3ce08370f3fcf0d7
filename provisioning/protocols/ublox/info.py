"""Information about devices: what they are, what they have told, what was noticed, how much they use.

Contract: section 4.5. These operations read: tags and device profiles that there are not have no devices. Devices that
there are not are refused, but by serial numbers. What is wrong with a period is in `info_wire.read_span`.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from provisioning.protocols.ublox import info_wire, machine_wire, refusals, selection, wire
from provisioning.protocols.ublox.call import Call
from provisioning.protocols.ublox.info_wire import OLDEST_NOTIFICATION, Done, Infos
from provisioning.protocols.ublox.reading import (
    MOST,
    Day,
    Form,
    Instant,
    Nothing,
    Paged,
    ProfileUid,
    TagNames,
    Text,
    Uid,
    Uids,
)
from provisioning.store import modules, notices, overview, profiles, tags, usage
from provisioning.store.lists import List, Page
from provisioning.store.notices import By, Chosen, CloneEvent, Notification, Suspicion

MOST_USED: Final = 50_000
"""Devices that a reply about usage tells of: it has no pages."""


class GetInfo(Form):
    ONE_OF = (("ROTPublicUIDs", "TagNames", "DeviceSerialNumbers"),)
    uids: Uids | None = Field(None, alias="ROTPublicUIDs")
    tags: TagNames | None = Field(None, alias="TagNames")
    serials: Annotated[list[Text], Field(max_length=MOST)] | None = Field(None, alias="DeviceSerialNumbers")
    options: Annotated[list[Literal["CORE", "PROVISIONING", "ZTP"]], Field(min_length=1, max_length=MOST)] | None = (
        Field(None, alias="Options")
    )


class Dated(Paged):
    start: Instant = Field(alias="FromDate")
    end: Instant | None = Field(None, alias="ToDate")


class GetNotifications(Dated):
    ONE_OF = (("ROTPublicUIDs", "TagNames"),)
    uids: Uids | None = Field(None, alias="ROTPublicUIDs")
    tags: TagNames | None = Field(None, alias="TagNames")
    type: Literal["DEVICE_STATE_CHANGE", "DEVICE_INFO_CHANGE", "DEVICE_PROPERTIES_CHANGE", "DEVICE_ERROR"] | None = (
        Field(None, alias="NotificationType")
    )


class GetCloneEvents(Dated):
    ONE_OF = (("ROTPublicUIDs", "TagNames", "DeviceProfileUID"),)
    uids: Uids | None = Field(None, alias="ROTPublicUIDs")
    tags: TagNames | None = Field(None, alias="TagNames")
    profile: ProfileUid | None = Field(None, alias="DeviceProfileUID")


class GetSuspicions(Paged):
    ONE_OF = (("ROTPublicUIDs", "TagNames", "DeviceProfileUID"),)
    uids: Uids | None = Field(None, alias="ROTPublicUIDs")
    tags: TagNames | None = Field(None, alias="TagNames")
    profile: ProfileUid | None = Field(None, alias="DeviceProfileUID")


class GetActivities(Dated):
    uid: Uid = Field(alias="ROTPublicUID")


class GetUsage(Form):
    AT_MOST_ONE_OF = (("ROTPublicUIDs", "TagNames"),)
    start: Day = Field(alias="FromDate")
    end: Day | None = Field(None, alias="ToDate")
    uids: Uids | None = Field(None, alias="ROTPublicUIDs")
    tags: TagNames | None = Field(None, alias="TagNames")


class GetUids(Paged):
    ONE_OF = (("DeviceProfileUID", "TagNames"),)
    profile: ProfileUid | None = Field(None, alias="DeviceProfileUID")
    tags: TagNames | None = Field(None, alias="TagNames")


async def get_info(call: Call, asked: GetInfo) -> Infos:
    options = asked.options or info_wire.OPTIONS
    if asked.serials:
        found = await overview.by_device_serials(call.tx, call.account.id, asked.serials, selection.MOST + 1)
        if len(found) > selection.MOST:
            raise refusals.invalid("DeviceSerialNumbers")
        chosen = await modules.by_ids(call.tx, found)
    else:
        chosen = await selection.chosen(call, asked.uids, asked.tags)
    # Most have none: of these nothing is asked.
    ids = [module.id for module in chosen if info_wire.ZTP in options and module.certificate_id is not None]
    certificates = await overview.installed(call.tx, ids, machine_wire.Kind.INSTALL_CERTIFICATE) if ids else {}
    return Infos(chosen, certificates, options)


async def get_notifications(call: Call, asked: GetNotifications) -> Page[Notification]:
    span = info_wire.read_span(asked.start, asked.end, call.now, OLDEST_NOTIFICATION)
    chosen = await _chosen(call, asked.uids, asked.tags)
    return await notices.notifications(call.tx, chosen, span, asked.type, asked.number)


async def get_clone_events(call: Call, asked: GetCloneEvents) -> Page[CloneEvent]:
    span = info_wire.read_span(asked.start, asked.end, call.now)
    chosen = await _chosen_with_profile(call, asked)
    return await notices.clone_events(call.tx, chosen, span, asked.number) if chosen else _nothing(asked)


async def get_suspicions(call: Call, asked: GetSuspicions) -> Page[Suspicion]:
    chosen = await _chosen_with_profile(call, asked)
    return await notices.suspicions(call.tx, chosen, asked.number) if chosen else _nothing(asked)


async def get_activities(call: Call, asked: GetActivities) -> Done:
    span = info_wire.read_span(asked.start, asked.end, call.now)
    module = await selection.by_uid(call, asked.uid)
    return Done(await notices.activities(call.tx, module.id, span, asked.number), module.last_seen)


async def get_usage(call: Call, asked: GetUsage) -> dict[str, Mapping[str, int]]:
    """Of devices that have used something.

    Raises:
        Refusal: MALFORMED with `TagNames` or `FromDate`: they are more than `MOST_USED`.
    """
    days = info_wire.read_days(asked.start, asked.end, call.now)
    found = await usage.sums(
        call.tx,
        call.account.id,
        days,
        now=call.now,
        limit=MOST_USED + 1,
        ids=await selection.ids(call, asked.uids, None) if asked.uids else None,
        tags=_folded(asked.tags) if asked.tags else None,
    )
    if len(found) > MOST_USED:
        raise refusals.invalid("TagNames" if asked.tags else "FromDate")
    return found


async def get_uids(call: Call, asked: GetUids) -> Page[str]:
    if asked.profile == wire.UNATTRIBUTED:
        return await modules.page(call.tx, List.UNATTRIBUTED, call.account.id, asked.number)
    if asked.profile:
        profile = await profiles.find(call.tx, call.account.id, asked.profile)
        return await modules.page(call.tx, List.OF_PROFILE, profile.id, asked.number) if profile else _nothing(asked)
    found = await tags.find(call.tx, call.account.id, _folded(asked.tags or ()))
    if len(found) == 1:
        return await modules.page(call.tx, List.TAGGED, found[0].id, asked.number)
    return await overview.tagged(call.tx, [tag.id for tag in found], asked.number)


async def get_version(_call: Call, _asked: Nothing) -> str:
    return wire.API_VERSION


def _folded(names: Sequence[str]) -> list[str]:
    return [wire.fold(name) for name in names]


def _nothing(asked: Paged) -> Page[Any]:
    return Page([], asked.number, 0)


async def _chosen(call: Call, uids: Sequence[str] | None, names: Sequence[str] | None) -> Chosen:
    """Raises: Refusal DEVICE_UNKNOWN."""
    if uids:
        return Chosen(call.account.id, By.IDS, await selection.ids(call, uids, None))
    return Chosen(call.account.id, By.TAGS, _folded(names or ()))


async def _chosen_with_profile(call: Call, asked: GetCloneEvents | GetSuspicions) -> Chosen | None:
    """None: those of a device profile that there is not. Raises: Refusal DEVICE_UNKNOWN."""
    if not asked.profile:
        return await _chosen(call, asked.uids, asked.tags)
    if asked.profile == wire.UNATTRIBUTED:
        return Chosen(call.account.id, By.PROFILE, None)
    profile = await profiles.find(call.tx, call.account.id, asked.profile)
    return Chosen(call.account.id, By.PROFILE, profile.id) if profile else None
