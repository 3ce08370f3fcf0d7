"""Which devices an operation is about: the account's, by uid or by tag."""

from collections.abc import Sequence
from typing import Final

from provisioning.model.module import Module
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.ublox import refusals, wire
from provisioning.protocols.ublox.call import Call
from provisioning.store import modules, tags

MOST: Final = 10_000
"""Devices that a selection by tag may come to, where the reply has no pages."""
MOST_CHANGED: Final = 100_000
"""The same, of an operation that changes them in one statement: it takes seconds."""


async def by_uids(call: Call, uids: Sequence[str], field: str = "ROTPublicUIDs") -> list[Module]:
    """In the order in which they are named, each once.

    Raises:
        Refusal: DEVICE_UNKNOWN with `field`: one is not the account's.
    """
    found = await modules.of_account(call.tx, call.account.id, list(uids))
    if any(uid not in found for uid in uids):
        raise refusals.unknown_device(field)
    return [found[uid] for uid in dict.fromkeys(uids)]


async def by_uid(call: Call, uid: str, field: str = "ROTPublicUID", *, with_secret: bool = False) -> Module:
    """Raises: Refusal DEVICE_UNKNOWN with `field`."""
    found = await modules.of_account(call.tx, call.account.id, [uid], with_secret=with_secret)
    if uid not in found:
        raise refusals.unknown_device(field)
    return found[uid]


async def by_tags(call: Call, names: Sequence[str]) -> list[Module]:
    """Those that have any of the tags, in the order of their ids; unknown tags have none.

    Raises:
        Refusal: MALFORMED, field `TagNames`, when they are more than `MOST`.
    """
    found = await modules.tagged(call.tx, call.account.id, [wire.fold(name) for name in names], MOST + 1)
    if len(found) > MOST:
        raise refusals.invalid("TagNames")
    return found


async def chosen(call: Call, uids: Sequence[str] | None, tags: Sequence[str] | None) -> list[Module]:
    """What a `reading.Selection` selects. Raises: Refusal, as `by_uids` and `by_tags`."""
    return await by_uids(call, uids) if uids else await by_tags(call, tags or ())


async def ids(call: Call, uids: Sequence[str] | None, names: Sequence[str] | None) -> list[int]:
    """As `chosen`, for operations that change devices: their ids, in no order. Each tag must be there.

    Raises:
        Refusal: UNKNOWN: one of the tags is not; MALFORMED, field `TagNames`, when they are more than `MOST_CHANGED`;
            as `by_uids`.
    """
    if uids:
        found = await modules.ids(call.tx, call.account.id, uids)
        if any(uid not in found for uid in uids):
            raise refusals.unknown_device("ROTPublicUIDs")
        return list(found.values())
    folded = await require_tags(call, names or ())
    tagged = await modules.tagged_ids(call.tx, call.account.id, folded, MOST_CHANGED + 1)
    if len(tagged) > MOST_CHANGED:
        raise refusals.invalid("TagNames")
    return tagged


async def require_tags(call: Call, names: Sequence[str]) -> list[str]:
    """The names as they are compared, each once. Raises: Refusal UNKNOWN: there is no such tag."""
    folded = list(dict.fromkeys(wire.fold(name) for name in names))
    known = {tag.folded for tag in await tags.find(call.tx, call.account.id, folded)}
    for name in folded:
        if name not in known:
            raise Refusal(Reason.UNKNOWN, tag=name)
    return folded
