"""Which devices an operation is about: the account's, by uid or by tag."""

from collections.abc import Sequence
from typing import Final

from provisioning.model.module import Module
from provisioning.protocols.ublox import refusals, wire
from provisioning.protocols.ublox.call import Call
from provisioning.store import modules

MOST: Final = 10_000
"""Devices that a selection by tag may come to, where the reply has no pages."""


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
