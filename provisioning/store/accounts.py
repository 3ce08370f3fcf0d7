"""The tables `account`, `refresh_token` and `token_key`."""
# ruff: noqa: S608 - statements are put together of constants, never of values

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Final

from provisioning.model.account import Account
from provisioning.store.database import Tx

COLUMNS: Final = """
    a.product_id AS id, p.key, a.generation, a.strict_e2e, a.certificates, p.name, p.created_at
"""
FROM: Final = "FROM account a JOIN product p ON p.id = a.product_id"
FIND: Final = f"SELECT {COLUMNS}, a.secret_hash {FROM} WHERE p.protocol = $1 AND p.key = ANY($2)"
PAGE: Final = f"""
    SELECT {COLUMNS}, (SELECT coalesce(sum(t.n), 0)::bigint FROM tally t WHERE t.kind = 1 AND t.owner = a.product_id)
           AS devices {FROM} WHERE p.protocol = $1 AND p.key > $2 ORDER BY p.key LIMIT $3
"""
# Whoever refers to it need not wait.
LOCK: Final = "SELECT FROM account WHERE product_id = ANY($1) ORDER BY product_id FOR NO KEY UPDATE"
ADD: Final = "INSERT INTO account (product_id, secret_hash, strict_e2e, certificates) VALUES ($1, $2, $3, $4)"
UPDATE: Final = "UPDATE account SET strict_e2e = $2, certificates = $3 WHERE product_id = $1"
SET_HASH: Final = """
    UPDATE account SET secret_hash = $2, generation = generation + 1 WHERE product_id = $1 RETURNING generation
"""
ADD_REFRESH: Final = "INSERT INTO refresh_token (hash, account_id, generation, issued_at) VALUES ($1, $2, $3, $4)"
FIND_REFRESH: Final = "SELECT account_id, generation, issued_at FROM refresh_token WHERE hash = $1"
# A few at a time, and not those that another request is about to drop: nobody waits.
DROP_REFRESH: Final = """
    DELETE FROM refresh_token WHERE hash IN (
        SELECT hash FROM refresh_token WHERE issued_at < $1 ORDER BY issued_at LIMIT 100 FOR UPDATE SKIP LOCKED
    )
"""
KEYS: Final = "SELECT kid, private, created_at FROM token_key ORDER BY created_at DESC, kid"
LOCK_KEYS: Final = "LOCK TABLE token_key IN SHARE ROW EXCLUSIVE MODE"
ADD_KEY: Final = "INSERT INTO token_key (kid, private, created_at) VALUES ($1, $2, $3)"
DROP_KEYS: Final = "DELETE FROM token_key WHERE kid = ANY($1)"


@dataclass(frozen=True, slots=True)
class RefreshToken:
    account_id: int
    generation: int
    issued_at: datetime


@dataclass(frozen=True, slots=True)
class TokenKey:
    kid: str
    pem: str = field(repr=False)
    """PKCS#8."""
    created_at: datetime


async def find(tx: Tx, protocol: str, key: str) -> tuple[Account, bytes] | None:
    """An account and the SHA-256 of its secret."""
    return (await find_all(tx, protocol, [key])).get(key)


async def find_all(tx: Tx, protocol: str, keys: Sequence[str]) -> dict[str, tuple[Account, bytes]]:
    """Those that there are, by key."""
    found = {}
    for row in await tx.db.fetch(FIND, protocol, keys):
        stated = dict(row)
        digest = stated.pop("secret_hash")
        found[row["key"]] = (Account(**stated), digest)
    return found


async def page(tx: Tx, protocol: str, after: str, limit: int) -> list[Account]:
    """In the order of their keys, with the number of their devices."""
    return [Account(**row) for row in await tx.db.fetch(PAGE, protocol, after, limit)]


async def lock(tx: Tx, ids: Sequence[int]) -> None:
    """Nobody else locks, changes or deletes one of these accounts until the transaction ends."""
    await tx.db.execute(LOCK, ids)


async def add(tx: Tx, product_id: int, secret_hash: bytes, *, strict_e2e: bool, certificates: bool) -> None:
    await tx.db.execute(ADD, product_id, secret_hash, strict_e2e, certificates)


async def update(tx: Tx, account: Account) -> None:
    """Write its flags."""
    await tx.db.execute(UPDATE, account.id, account.strict_e2e, account.certificates)


async def set_secret(tx: Tx, account: Account, secret_hash: bytes) -> int | None:
    """What was given for the secret before is not accepted any more. Returns the new generation; None: it is gone."""
    generation: int | None = await tx.db.fetchval(SET_HASH, account.id, secret_hash)
    return generation


async def add_refresh(tx: Tx, token: str, account: Account, now: datetime) -> None:
    await tx.db.execute(ADD_REFRESH, sha256(token.encode()).digest(), account.id, account.generation, now)


async def find_refresh(tx: Tx, token: str) -> RefreshToken | None:
    row = await tx.db.fetchrow(FIND_REFRESH, sha256(token.encode()).digest())
    return RefreshToken(**row) if row else None


async def drop_refresh(tx: Tx, issued_before: datetime) -> None:
    await tx.db.execute(DROP_REFRESH, issued_before)


async def token_keys(tx: Tx) -> list[TokenKey]:
    """The newest first."""
    return [
        TokenKey(row["kid"], tx.sealer.open(row["private"], _context(row["kid"])), row["created_at"])
        for row in await tx.db.fetch(KEYS)
    ]


async def lock_token_keys(tx: Tx) -> None:
    """Nobody else adds or drops one until the transaction ends."""
    await tx.db.execute(LOCK_KEYS)


async def add_token_key(tx: Tx, key: TokenKey) -> None:
    await tx.db.execute(ADD_KEY, key.kid, tx.sealer.seal(key.pem, _context(key.kid)), key.created_at)


async def drop_token_keys(tx: Tx, kids: Sequence[str]) -> None:
    await tx.db.execute(DROP_KEYS, kids)


def _context(kid: str) -> str:
    return f"token_key|{kid}"
