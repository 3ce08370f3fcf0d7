"""The table `enrolment_group`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import asyncpg

from provisioning.model.registry import Group
from provisioning.store.database import Tx

SELECT: Final = """
    SELECT g.id, g.protocol, g.key, g.password, g.product_id, coalesce(p.key, '') AS product, g.name, g.auto_register,
           g.auto_activation, coalesce(p.certificate_login, false) AS certificate_login, g.freshness, g.created_at
    FROM enrolment_group g LEFT JOIN product p ON p.id = g.product_id
"""
FIND: Final = f"{SELECT} WHERE g.protocol = $1 AND g.key = ANY($2)"
LIST: Final = f"""
    {SELECT} WHERE ($1::text IS NULL OR g.protocol = $1) AND (g.protocol, g.key) > ($2, $3)
    ORDER BY g.protocol, g.key LIMIT $4
"""
INSERT: Final = """
    INSERT INTO enrolment_group (protocol, key, password, product_id, name, auto_register, auto_activation, freshness)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id, created_at
"""
UPDATE: Final = """
    UPDATE enrolment_group SET password = $2, product_id = $3, name = $4, auto_register = $5, auto_activation = $6,
           freshness = $7
    WHERE id = $1
"""
OF_PRODUCT: Final = f"{SELECT} WHERE g.product_id = $1 ORDER BY g.key"
DELETE: Final = "DELETE FROM enrolment_group WHERE id = $1"


def context(protocol: str, key: str) -> str:
    return f"group|{protocol}|{key}"


def _group(tx: Tx, row: asyncpg.Record) -> Group:
    fields: dict[str, Any] = dict(row)
    fields["password"] = tx.sealer.open(row["password"], context(row["protocol"], row["key"]))
    return Group(**fields)


async def find(tx: Tx, protocol: str, key: str) -> Group | None:
    return (await find_all(tx, protocol, [key])).get(key)


async def find_all(tx: Tx, protocol: str, keys: Sequence[str]) -> dict[str, Group]:
    """Those of the groups that there are, by key."""
    return {row["key"]: _group(tx, row) for row in await tx.db.fetch(FIND, protocol, keys)}


async def of_product(tx: Tx, product_id: int) -> list[Group]:
    """The groups whose devices are allocated in the product."""
    return [_group(tx, row) for row in await tx.db.fetch(OF_PRODUCT, product_id)]


async def page(tx: Tx, protocol: str | None, after: tuple[str, str], limit: int) -> list[Group]:
    """Groups after (protocol, key), in that order."""
    return [_group(tx, row) for row in await tx.db.fetch(LIST, protocol, *after, limit)]


async def add(tx: Tx, group: Group) -> Group:
    """Raises: Refusal DUPLICATE from the transaction."""
    sealed = tx.sealer.seal(group.password, context(group.protocol, group.key))
    row = await tx.db.fetchrow(
        INSERT, group.protocol, group.key, sealed, group.product_id, group.name, group.auto_register,
        group.auto_activation, group.freshness,
    )  # fmt: skip
    assert row is not None
    return replace(group, id=row["id"], created_at=row["created_at"])


async def update(tx: Tx, group: Group) -> None:
    sealed = tx.sealer.seal(group.password, context(group.protocol, group.key))
    await tx.db.execute(
        UPDATE, group.id, sealed, group.product_id, group.name, group.auto_register, group.auto_activation,
        group.freshness,
    )  # fmt: skip


async def delete(tx: Tx, group: Group) -> None:
    """Raises: Refusal IN_USE from the transaction, while devices refer to it."""
    await tx.db.execute(DELETE, group.id)
