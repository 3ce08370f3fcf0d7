"""The table `product`."""
# ruff: noqa: S608 - statements are put together of constants, never of values

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import asyncpg

from provisioning.model.registry import Product
from provisioning.store.database import Tx

COLUMNS: Final = """
    p.id, p.protocol, p.key, p.secret, p.name, p.dynamic_activation, p.auto_create, p.certificate_login,
    p.register_limit, p.client_authority, p.demo, p.created_at
"""
FIND: Final = f"SELECT {COLUMNS} FROM product p WHERE p.protocol = $1 AND p.key = ANY($2)"
LIST: Final = f"""
    SELECT {COLUMNS}, (SELECT count(*) FROM device d WHERE d.product_id = p.id) AS devices
    FROM product p WHERE ($1::text IS NULL OR p.protocol = $1) AND (p.protocol, p.key) > ($2, $3)
    ORDER BY p.protocol, p.key LIMIT $4
"""
INSERT: Final = """
    INSERT INTO product (protocol, key, secret, name, dynamic_activation, auto_create, certificate_login,
                         register_limit, client_authority, demo)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id, created_at
"""
UPDATE: Final = """
    UPDATE product SET secret = $2, name = $3, dynamic_activation = $4, auto_create = $5, certificate_login = $6,
           register_limit = $7, client_authority = $8, demo = $9
    WHERE id = $1
"""
LOCK_FOR_DELETION: Final = "SELECT pg_advisory_xact_lock(hashtextextended('product ' || $1::bigint, 0))"
DELETE: Final = "DELETE FROM product WHERE id = $1"
DEMO: Final = "SELECT protocol, key FROM product WHERE demo ORDER BY protocol, key"
ANY_PRODUCT: Final = "SELECT EXISTS (SELECT FROM product) OR EXISTS (SELECT FROM enrolment_group)"


def context(protocol: str, key: str) -> str:
    return f"product|{protocol}|{key}"


def _product(tx: Tx, row: asyncpg.Record) -> Product:
    fields: dict[str, Any] = dict(row)
    fields["secret"] = tx.sealer.open(row["secret"], context(row["protocol"], row["key"]))
    return Product(**fields)


async def find(tx: Tx, protocol: str, key: str) -> Product | None:
    return (await find_all(tx, protocol, [key])).get(key)


async def find_all(tx: Tx, protocol: str, keys: Sequence[str]) -> dict[str, Product]:
    """Those of the products that there are, by key."""
    return {row["key"]: _product(tx, row) for row in await tx.db.fetch(FIND, protocol, keys)}


async def page(tx: Tx, protocol: str | None, after: tuple[str, str], limit: int) -> list[Product]:
    """Products after (protocol, key), in that order."""
    return [_product(tx, row) for row in await tx.db.fetch(LIST, protocol, *after, limit)]


async def add(tx: Tx, product: Product) -> Product:
    """Raises: Refusal DUPLICATE from the transaction."""
    sealed = tx.sealer.seal(product.secret, context(product.protocol, product.key))
    row = await tx.db.fetchrow(
        INSERT, product.protocol, product.key, sealed, product.name, product.dynamic_activation, product.auto_create,
        product.certificate_login, product.register_limit, product.client_authority, product.demo,
    )  # fmt: skip
    assert row is not None
    return replace(product, id=row["id"], created_at=row["created_at"])


async def update(tx: Tx, product: Product) -> None:
    sealed = tx.sealer.seal(product.secret, context(product.protocol, product.key))
    await tx.db.execute(
        UPDATE, product.id, sealed, product.name, product.dynamic_activation, product.auto_create,
        product.certificate_login, product.register_limit, product.client_authority, product.demo,
    )  # fmt: skip


async def lock_for_deletion(tx: Tx, product: Product) -> None:
    """From now on until the transaction ends no device registers itself in the product: see `registrations.hold`."""
    await tx.db.execute(LOCK_FOR_DELETION, product.id)


async def delete(tx: Tx, product: Product) -> None:
    """Raises: Refusal IN_USE from the transaction, while devices or groups refer to it."""
    await tx.db.execute(DELETE, product.id)


async def demo_keys(tx: Tx) -> list[tuple[str, str]]:
    """Protocols and keys of the products that were loaded from the demo fleet."""
    return [(row["protocol"], row["key"]) for row in await tx.db.fetch(DEMO)]


async def registry_is_empty(tx: Tx) -> bool:
    return not await tx.db.fetchval(ANY_PRODUCT)
