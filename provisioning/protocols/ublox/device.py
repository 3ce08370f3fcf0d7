"""Devices of an account, its whitelist, and what its devices are provisioned with. Contract: sections 3 and 4.3.

The forms and the replies stand in `device_wire`.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from provisioning.model.module import Module
from provisioning.protocols.ublox import refusals, selection
from provisioning.protocols.ublox.call import Call
from provisioning.protocols.ublox.device_wire import ChangeWhitelist, GetList, SetProvisioning
from provisioning.protocols.ublox.profile import find_root_ca
from provisioning.protocols.ublox.reading import Paged, Selection
from provisioning.store import modules, whitelist
from provisioning.store.lists import List, Page
from provisioning.store.whitelist import Entry, Kind

FILTERS: Final[Mapping[str, List]] = {
    "ALL": List.MODULES,
    "WHITELISTED": List.WHITELISTED,
    "BLACKLISTED": List.BLACKLISTED,
}


async def get_list(call: Call, asked: GetList) -> Page[str]:
    return await modules.page(call.tx, FILTERS[asked.filter or "ALL"], call.account.id, asked.number)


async def change_whitelist(call: Call, asked: ChangeWhitelist) -> None:
    """Entries come or go, all or none; the account's modules that they name follow.

    Raises:
        Refusal: DEVICE_UNKNOWN, field `ROTPublicUIDs`: one is a module of another account.
    """
    changes = asked.changes()
    uids = [*changes.added, *changes.dropped]
    if await whitelist.has_foreign(call.tx, call.account.id, uids):
        raise refusals.unknown_device("ROTPublicUIDs")
    await whitelist.hold(call.tx, call.account.id)
    await whitelist.add(call.tx, call.account.id, Kind.UID, changes.added, now=call.now)
    await whitelist.add(call.tx, call.account.id, Kind.IMEI, changes.added_imeis, now=call.now)
    await whitelist.drop(call.tx, call.account.id, Kind.UID, changes.dropped)
    await whitelist.drop(call.tx, call.account.id, Kind.IMEI, changes.dropped_imeis)
    await whitelist.settle(call.tx, call.account.id, uids, [*changes.added_imeis, *changes.dropped_imeis])


async def get_whitelist(call: Call, asked: Paged) -> Page[Entry]:
    return await whitelist.page(call.tx, call.account.id, asked.number)


async def set_provisioning(call: Call, asked: SetProvisioning) -> None:
    """It is desired now, and applied at the next heartbeat.

    Raises:
        Refusal: UNKNOWN: no such tag or root CA; else as `selection.ids`.
    """
    root_ca_id = await find_root_ca(call, asked.wanted)
    ids = await selection.ids(call, asked.uids, asked.tags)
    wanted = {name: (value, call.now) for name, value in asked.wanted.items()}
    await modules.provision(call.tx, ids, wanted, root_ca_id)


async def get_provisioning(call: Call, asked: Selection) -> Sequence[Module]:
    return await selection.chosen(call, asked.uids, asked.tags)


async def delete_provisioning(call: Call, asked: Selection) -> None:
    """Nothing more is applied; the interval of heartbeats goes back to the default."""
    await modules.unprovision(call.tx, await selection.ids(call, asked.uids, asked.tags))
