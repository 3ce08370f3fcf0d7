"""The table `device_profile`: groups of an account's modules, with what these get when they bootstrap."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from provisioning.model.module import Properties
from provisioning.store import lists, modules
from provisioning.store.database import Tx
from provisioning.store.lists import Page

COLUMNS: Final = """
    p.group_id AS id, g.key, g.name, g.created_at, p.whitelist_check, p.desired, p.root_ca_id
"""
FROM: Final = "FROM device_profile p JOIN enrolment_group g ON g.id = p.group_id WHERE p.account_id = $1"
FIND: Final = f"SELECT {COLUMNS} {FROM} AND g.key = ANY($2) ORDER BY p.group_id"
HOLD: Final = f"{FIND} FOR NO KEY UPDATE OF p"
NAMED: Final = "($2::text IS NULL OR g.name = $2)"
TAGGED: Final = """
    p.group_id IN (SELECT a.profile_id FROM tag_profile a JOIN tag t ON t.id = a.tag_id
                   WHERE t.account_id = $1 AND t.folded = ANY($2))
"""
COUNT: Final = f"SELECT count(*) {FROM} AND {{which}}"
PAGE: Final = f"SELECT {COLUMNS} {FROM} AND {{which}} ORDER BY p.group_id OFFSET $3 LIMIT $4"
TAGS: Final = """
    SELECT a.profile_id, array_agg(t.name ORDER BY t.id) AS names
    FROM tag_profile a JOIN tag t ON t.id = a.tag_id WHERE a.profile_id = ANY($1) GROUP BY a.profile_id
"""
PROVISION: Final = "UPDATE device_profile SET desired = $2, root_ca_id = $3 WHERE group_id = $1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    id: int
    key: str
    """Its uid."""
    name: str
    created_at: datetime
    whitelist_check: bool
    """Its modules must stand on the whitelist when they bootstrap."""
    desired: Properties
    """What its modules get when they bootstrap."""
    root_ca_id: int | None
    """Of the root CA in `desired`."""
    devices: int = 0
    """Modules that it is sealed into; filled in by listings."""
    tags: tuple[str, ...] = ()
    """Names, the oldest tag first; filled in by listings."""


def _profile(row: Any, **more: Any) -> Profile:
    return Profile(**{**row, "desired": modules.read_properties(row["desired"])}, **more)


async def find(tx: Tx, account_id: int, key: str) -> Profile | None:
    return (await find_all(tx, account_id, [key])).get(key)


async def find_all(tx: Tx, account_id: int, keys: Sequence[str]) -> dict[str, Profile]:
    """Those of the account's that there are, by uid."""
    return {row["key"]: _profile(row) for row in await tx.db.fetch(FIND, account_id, keys)}


async def hold(tx: Tx, account_id: int, key: str) -> Profile | None:
    """As it is now; nobody else changes it until the transaction ends."""
    row = await tx.db.fetchrow(HOLD, account_id, [key])
    return _profile(row) if row else None


async def provision(tx: Tx, profile: Profile, desired: Properties, root_ca_id: int | None) -> None:
    """Write what its modules get. `root_ca_id`: of the root CA in it."""
    await tx.db.execute(PROVISION, profile.id, modules.write_properties(desired), root_ca_id)


async def page(tx: Tx, account_id: int, number: int, *, name: str | None = None) -> Page[Profile]:
    """With devices and tags, the oldest first; `name`: those of that name alone."""
    return await _page(tx, NAMED, account_id, name, number)


async def page_tagged(tx: Tx, account_id: int, number: int, folded: Sequence[str]) -> Page[Profile]:
    """The same, of those that have one of the account's tags of these names."""
    return await _page(tx, TAGGED, account_id, folded, number)


async def _page(tx: Tx, which: str, account_id: int, wanted: str | Sequence[str] | None, number: int) -> Page[Profile]:
    total = await tx.db.fetchval(COUNT.format(which=which), account_id, wanted)
    offset = (number - 1) * lists.PAGE_SIZE
    if offset >= total:
        return Page([], number, total)
    rows = await tx.db.fetch(PAGE.format(which=which), account_id, wanted, offset, lists.PAGE_SIZE)
    ids = [row["id"] for row in rows]
    devices = await lists.lengths(tx, lists.List.OF_PROFILE, ids)
    tags = {row["profile_id"]: tuple(row["names"]) for row in await tx.db.fetch(TAGS, ids)}
    found = [_profile(row, devices=devices.get(row["id"], 0), tags=tags.get(row["id"], ())) for row in rows]
    return Page(found, number, total)
