"""The table `module`: devices of accounts."""
# ruff: noqa: S608 - statements are put together of constants, never of values

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg

from provisioning.model.module import Module, Properties
from provisioning.store import devices, lists
from provisioning.store.database import Tx
from provisioning.store.lists import List, Page

SELECT: Final = """
    SELECT m.device_id AS id, m.account_id, p.key AS account, m.uid, d.state = 'activated' AS activated, d.disabled,
           g.key AS profile, m.profile_id, m.sealed_at, m.whitelisted, m.blacklisted, m.bootstrapped_at, m.signed_at,
           m.bootstrap_mac, m.imei, m.device_serial, m.production_serial, m.serial, m.type_number, m.rot_version,
           m.version, m.counter, m.last_seen, m.due_at, m.desired, m.current, m.desired_ca, m.current_ca,
           m.certificate_id, m.issuer_id, d.protocol, d.secret
    FROM module m JOIN device d ON d.id = m.device_id JOIN product p ON p.id = m.account_id
    LEFT JOIN enrolment_group g ON g.id = m.profile_id
"""
BY_UIDS: Final = f"{SELECT} WHERE m.uid = ANY($1)"
OF_ACCOUNT: Final = f"{SELECT} WHERE m.account_id = $1 AND m.uid = ANY($2)"
BY_IDS: Final = f"{SELECT} WHERE m.device_id = ANY($1) ORDER BY m.device_id"
TAGGED: Final = f"""
    {SELECT} WHERE m.device_id IN (
        SELECT t.device_id FROM tag_module t JOIN tag ON tag.id = t.tag_id
        WHERE tag.account_id = $1 AND tag.folded = ANY($2)
    ) ORDER BY m.device_id LIMIT $3
"""
LOCK: Final = "SELECT FROM module WHERE device_id = ANY($1) ORDER BY device_id FOR UPDATE"
IDS: Final = "SELECT uid, device_id FROM module WHERE account_id = $1 AND uid = ANY($2)"
TAGGED_IDS: Final = """
    SELECT DISTINCT t.device_id FROM tag_module t JOIN tag ON tag.id = t.tag_id
    WHERE tag.account_id = $1 AND tag.folded = ANY($2) ORDER BY t.device_id LIMIT $3
"""
OF_MODULES: Final = "SELECT uid FROM module WHERE {} AND device_id >= $2 ORDER BY device_id OFFSET $3 LIMIT $4"
PAGES: Final[Mapping[List, str]] = {
    List.MODULES: OF_MODULES.format("account_id = $1"),
    List.WHITELISTED: OF_MODULES.format("account_id = $1 AND whitelisted"),
    List.BLACKLISTED: OF_MODULES.format("account_id = $1 AND blacklisted"),
    List.OF_PROFILE: OF_MODULES.format("profile_id = $1"),
    List.UNATTRIBUTED: OF_MODULES.format("account_id = $1 AND profile_id IS NULL"),
    List.TAGGED: """
        SELECT m.uid FROM (
            SELECT device_id FROM tag_module WHERE tag_id = $1 AND device_id >= $2
            ORDER BY device_id OFFSET $3 LIMIT $4
        ) t JOIN module m ON m.device_id = t.device_id ORDER BY m.device_id
    """,
    List.ISSUED: OF_MODULES.format("issuer_id = $1"),
}
LOCK_ONLY: Final = "SELECT FROM module WHERE device_id = ANY($1) ORDER BY device_id FOR NO KEY UPDATE"
# What is as it should be keeps its date.
PROVISION: Final = """
    UPDATE module m SET desired = m.desired || news.news, desired_ca = coalesce($3, m.desired_ca)
    FROM (
        SELECT m.device_id, jsonb_object_agg(wanted.key, wanted.value) AS news
        FROM module m CROSS JOIN jsonb_each($2::jsonb) wanted
        WHERE m.device_id = ANY($1) AND m.desired -> wanted.key -> 0 IS DISTINCT FROM wanted.value -> 0
        GROUP BY m.device_id
    ) news
    WHERE m.device_id = news.device_id
"""
UNPROVISION: Final = """
    UPDATE module SET desired = '{}', desired_ca = NULL WHERE device_id = ANY($1) AND desired <> '{}'
"""
ADD: Final = """
    INSERT INTO module (device_id, account_id, uid, production_serial, device_serial, imei)
    SELECT i, a, u, s, s, m FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[])
           AS new (i, a, u, s, m)
"""


def _module(tx: Tx, row: asyncpg.Record, *, with_secret: bool) -> Module:
    fields: dict[str, Any] = dict(row)
    fields["desired"], fields["current"] = read_properties(row["desired"]), read_properties(row["current"])
    sealed, protocol = fields.pop("secret"), fields.pop("protocol")
    if with_secret and sealed:
        fields["secret"] = tx.sealer.open(sealed, devices.context(protocol, row["account"], row["uid"]))
    return Module(**fields)


def read_properties(text: str) -> Properties:
    return {name: (value, datetime.fromisoformat(at)) for name, (value, at) in json.loads(text).items()}


def write_properties(properties: Properties) -> str:
    return json.dumps({name: [value, at.isoformat()] for name, (value, at) in properties.items()})


async def by_uid(tx: Tx, uid: str, *, with_secret: bool = False) -> Module | None:
    """Whatever its account."""
    row = await tx.db.fetchrow(BY_UIDS, [uid])
    return _module(tx, row, with_secret=with_secret) if row else None


async def by_uids(tx: Tx, uids: Sequence[str]) -> dict[str, Module]:
    """Those that there are, by uid, whatever their account."""
    return {row["uid"]: _module(tx, row, with_secret=False) for row in await tx.db.fetch(BY_UIDS, uids)}


async def of_account(tx: Tx, account_id: int, uids: Sequence[str], *, with_secret: bool = False) -> dict[str, Module]:
    """Those of the account's that there are, by uid."""
    rows = await tx.db.fetch(OF_ACCOUNT, account_id, uids)
    return {row["uid"]: _module(tx, row, with_secret=with_secret) for row in rows}


async def by_ids(tx: Tx, ids: Sequence[int]) -> list[Module]:
    """In the order of their ids."""
    return [_module(tx, row, with_secret=False) for row in await tx.db.fetch(BY_IDS, ids)]


async def tagged(tx: Tx, account_id: int, folded: Sequence[str], limit: int) -> list[Module]:
    """Modules that have one of the account's tags of these (folded) names, in the order of their ids."""
    rows = await tx.db.fetch(TAGGED, account_id, folded, limit)
    return [_module(tx, row, with_secret=False) for row in rows]


async def ids(tx: Tx, account_id: int, uids: Sequence[str]) -> dict[str, int]:
    """Of those of the account's that there are, by uid."""
    return {row["uid"]: row["device_id"] for row in await tx.db.fetch(IDS, account_id, uids)}


async def tagged_ids(tx: Tx, account_id: int, folded: Sequence[str], limit: int) -> list[int]:
    """As `tagged`, their ids."""
    return [row["device_id"] for row in await tx.db.fetch(TAGGED_IDS, account_id, folded, limit)]


async def page(tx: Tx, which: List, owner: int, number: int) -> Page[str]:
    """Uids of the modules of a list, in the order of their ids. Of any but `WHITELIST`."""
    place = await lists.locate(tx, which, owner, number)
    if place.first is None:
        return Page([], number, place.total)
    rows = await tx.db.fetch(PAGES[which], owner, place.first, place.skip, lists.PAGE_SIZE)
    return Page([row["uid"] for row in rows], number, place.total)


async def provision(tx: Tx, ids: Sequence[int], wanted: Properties, root_ca_id: int | None) -> None:
    """Add to what modules are to be provisioned with. `root_ca_id`: of the root CA in it, if there is one.

    What a module has already with the same value keeps its date.
    """
    await tx.db.execute(LOCK_ONLY, ids)
    await tx.db.execute(PROVISION, ids, write_properties(wanted), root_ca_id)


async def unprovision(tx: Tx, ids: Sequence[int]) -> None:
    """Nothing is to be provisioned any more."""
    await tx.db.execute(LOCK_ONLY, ids)
    await tx.db.execute(UNPROVISION, ids)


async def lock(tx: Tx, ids: Sequence[int]) -> list[Module]:
    """As they are now; nobody else changes them until the transaction ends. In the order of their ids."""
    await tx.db.execute(LOCK, ids)
    return await by_ids(tx, ids)


async def add(tx: Tx, rows: Sequence[tuple[int, int, str, str | None, str | None]]) -> None:
    """Device id, account id, uid, serial number in the production log, IMEI of each."""
    if rows:
        await tx.db.execute(ADD, *zip(*rows, strict=True))


async def update(tx: Tx, module_id: int, changes: Mapping[str, object]) -> None:
    """Write columns of one row. `desired` and `current` are properties; column names are the caller's constants."""
    if not changes:
        return
    values = [
        write_properties(value) if name in {"desired", "current"} else value  # type: ignore[arg-type]
        for name, value in changes.items()
    ]
    columns = ", ".join(f"{name} = ${number}" for number, name in enumerate(changes, 2))
    await tx.db.execute(f"UPDATE module SET {columns} WHERE device_id = $1", module_id, *values)
