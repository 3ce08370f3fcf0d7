"""The tables `tag`, `tag_module` and `tag_profile`: names that an account gives to modules and device profiles.

Rows are written and deleted in the order of their keys: two who change the same ones wait for each other, and not in
a circle.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from provisioning.store import lists
from provisioning.store.database import Tx
from provisioning.store.lists import Page

FIND: Final = "SELECT id, name, folded, created_at FROM tag WHERE account_id = $1 AND folded = ANY($2) ORDER BY id"
KEEP: Final = f"{FIND} FOR KEY SHARE"
HOLD: Final = f"{FIND} FOR UPDATE"
ADD: Final = "INSERT INTO tag (account_id, name, folded, created_at) VALUES ($1, $2, $3, $4)"
DELETE: Final = "DELETE FROM tag WHERE id = $1"
COUNT: Final = "SELECT count(*) FROM tag WHERE account_id = $1"
PAGE: Final = """
    SELECT id, name, folded, created_at, (SELECT count(*) FROM tag_profile p WHERE p.tag_id = t.id) AS profiles
    FROM tag t WHERE account_id = $1 ORDER BY id OFFSET $2 LIMIT $3
"""
HAS_MODULES: Final = "SELECT EXISTS (SELECT FROM tag_module WHERE tag_id = $1)"
ASSIGN: Final = """
    INSERT INTO {table} (tag_id, {column}, sync)
    SELECT tag, thing, $3 FROM unnest($1::bigint[]) AS tag, unnest($2::bigint[]) AS thing ORDER BY tag, thing
    ON CONFLICT DO NOTHING
"""
REMOVE: Final = """
    WITH gone AS (
        SELECT a.tag_id, a.{column} FROM {table} a JOIN tag t ON t.id = a.tag_id
        WHERE t.account_id = $1 AND ($2::text[] IS NULL OR t.folded = ANY($2))
              AND ($3::bigint[] IS NULL OR a.{column} = ANY($3))
        ORDER BY a.tag_id, a.{column} FOR UPDATE OF a
    )
    DELETE FROM {table} a USING gone g WHERE (a.tag_id, a.{column}) = (g.tag_id, g.{column})
"""
MODULES: Final = {"table": "tag_module", "column": "device_id"}
PROFILES: Final = {"table": "tag_profile", "column": "profile_id"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    id: int
    name: str
    """As it was given."""
    folded: str
    """As it is compared."""
    created_at: datetime
    modules: int = 0
    """How many have it; filled in by listings."""
    profiles: int = 0


async def add(tx: Tx, account_id: int, name: str, folded: str, *, now: datetime) -> None:
    """Raises: Refusal DUPLICATE from the transaction."""
    await tx.db.execute(ADD, account_id, name, folded, now)


async def find(tx: Tx, account_id: int, folded: Sequence[str]) -> list[Tag]:
    """The account's tags of these names, in the order of their ids."""
    return [Tag(**row) for row in await tx.db.fetch(FIND, account_id, folded)]


async def keep(tx: Tx, account_id: int, folded: Sequence[str]) -> list[Tag]:
    """The same; nobody deletes them until the transaction ends."""
    return [Tag(**row) for row in await tx.db.fetch(KEEP, account_id, folded)]


async def hold(tx: Tx, account_id: int, folded: str) -> Tag | None:
    """That tag; nobody assigns or deletes it until the transaction ends."""
    row = await tx.db.fetchrow(HOLD, account_id, [folded])
    return Tag(**row) if row else None


async def delete(tx: Tx, tag: Tag) -> None:
    """With its assignments."""
    await tx.db.execute(DELETE, tag.id)


async def has_modules(tx: Tx, tag: Tag) -> bool:
    return bool(await tx.db.fetchval(HAS_MODULES, tag.id))


async def page(tx: Tx, account_id: int, number: int) -> Page[Tag]:
    """With their counts; the oldest first."""
    total = await tx.db.fetchval(COUNT, account_id)
    offset = (number - 1) * lists.PAGE_SIZE
    if offset >= total:
        return Page([], number, total)
    rows = await tx.db.fetch(PAGE, account_id, offset, lists.PAGE_SIZE)
    lengths = await lists.lengths(tx, lists.List.TAGGED, [row["id"] for row in rows])
    return Page([Tag(**row, modules=lengths.get(row["id"], 0)) for row in rows], number, total)


async def assign_modules(tx: Tx, tag_ids: Sequence[int], device_ids: Sequence[int], *, sync: bool) -> None:
    """Each tag to each module. Where it is there it stays."""
    await tx.db.execute(ASSIGN.format(**MODULES), tag_ids, device_ids, sync)


async def assign_profiles(tx: Tx, tag_ids: Sequence[int], profile_ids: Sequence[int], *, sync: bool) -> None:
    """Each tag to each device profile. Where it is there it stays."""
    await tx.db.execute(ASSIGN.format(**PROFILES), tag_ids, profile_ids, sync)


async def remove_modules(
    tx: Tx, account_id: int, folded: Sequence[str] | None, device_ids: Sequence[int] | None
) -> None:
    """The account's tags of these names from these modules; None: all."""
    await tx.db.execute(REMOVE.format(**MODULES), account_id, folded, device_ids)


async def remove_profiles(
    tx: Tx, account_id: int, folded: Sequence[str] | None, profile_ids: Sequence[int] | None
) -> None:
    """The account's tags of these names from these device profiles; None: all."""
    await tx.db.execute(REMOVE.format(**PROFILES), account_id, folded, profile_ids)
