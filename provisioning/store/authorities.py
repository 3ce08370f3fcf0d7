"""The tables `authority` and `responder`.

Names and lists are of the house's own authorities, unless stated: those of accounts are reached by their ids.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import asyncpg

from provisioning.model.certificate import Authority
from provisioning.store.database import Tx

LOCK_ID: Final = 0x6761_7461  # any number that nobody else of this database uses

SELECT: Final = """
    SELECT id, name, generation, certificate, chain, key_type, key IS NOT NULL AS has_key, serial, subject, not_before,
           not_after, is_default, retired_at, distrusted_at, of_account, created_at
    FROM authority
"""
BY_ID: Final = f"{SELECT} WHERE id = $1"
BY_NAME: Final = f"""
    {SELECT} WHERE name = $1 AND ($2::integer IS NULL OR generation = $2) AND NOT of_account
    ORDER BY generation DESC LIMIT 1
"""
BY_CERTIFICATE: Final = f"{SELECT} WHERE sha256(certificate) = sha256($1)"
DEFAULT: Final = f"{SELECT} WHERE is_default"
LIST: Final = f"{SELECT} WHERE NOT of_account ORDER BY name, generation"
NAMES: Final = "SELECT id, name, generation FROM authority"
TRUSTED: Final = f"""
    {SELECT} WHERE not_before <= $1 AND not_after > $1 AND distrusted_at IS NULL AND NOT of_account
    ORDER BY name, generation
"""
LOCK: Final = f"{SELECT} WHERE id = $1 FOR NO KEY UPDATE"
SERIALIZE: Final = "SELECT pg_advisory_xact_lock($1)"
INSERT: Final = """
    INSERT INTO authority (name, generation, certificate, chain, key, key_type, serial, subject, not_before, not_after,
                           is_default, of_account)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING id, created_at
"""
RETIRE: Final = "UPDATE authority SET retired_at = $2, is_default = false WHERE id = $1"
CLEAR_DEFAULT: Final = "UPDATE authority SET is_default = false WHERE is_default"
SET_DEFAULT: Final = "UPDATE authority SET is_default = true WHERE id = $1"
DISTRUST: Final = "UPDATE authority SET distrusted_at = $2 WHERE id = $1"
# The key goes, too: what is of no account any more must not sign for it.
END: Final = """
    UPDATE authority SET key = NULL, retired_at = coalesce(retired_at, $2), distrusted_at = coalesce(distrusted_at, $2)
    WHERE id = $1
"""
HAS_ISSUED: Final = "SELECT EXISTS (SELECT FROM certificate WHERE authority_id = $1)"
DELETE: Final = "DELETE FROM authority WHERE id = $1"
KEY: Final = """
    SELECT name, generation, key, retired_at IS NULL AND distrusted_at IS NULL AS may_issue FROM authority WHERE id = $1
"""
# The row stays locked until the transaction ends: the entries that it reads next belong to a number of their own.
BUMP: Final = "UPDATE authority SET crl_number = crl_number + 1 WHERE id = $1 RETURNING crl_number"

RESPONDER: Final = """
    SELECT c.der, c.serial, r.key FROM responder r JOIN certificate c ON c.id = r.certificate_id
    WHERE r.authority_id = $1 AND c.status = 'valid' AND c.not_before <= $2 AND c.not_after > $3
    ORDER BY c.not_after DESC, c.id DESC LIMIT 1
"""
ADD_RESPONDER: Final = "INSERT INTO responder (certificate_id, authority_id, key) VALUES ($1, $2, $3)"
PRUNE_RESPONDERS: Final = """
    DELETE FROM responder r USING certificate c
    WHERE c.id = r.certificate_id AND r.authority_id = $1 AND c.not_after < $2
"""


def context(name: str, generation: int) -> str:
    return f"authority|{name}|{generation}"


def responder_context(authority_id: int, serial: str) -> str:
    return f"responder|{authority_id}|{serial}"


def _authority(row: asyncpg.Record) -> Authority:
    fields: dict[str, Any] = dict(row)
    fields["chain"] = tuple(row["chain"])
    return Authority(**fields)


async def by_id(tx: Tx, authority_id: int) -> Authority | None:
    row = await tx.db.fetchrow(BY_ID, authority_id)
    return _authority(row) if row else None


async def find(tx: Tx, name: str, generation: int | None = None) -> Authority | None:
    """A generation of the authority; None: the latest."""
    row = await tx.db.fetchrow(BY_NAME, name, generation)
    return _authority(row) if row else None


async def by_certificate(tx: Tx, der: bytes) -> Authority | None:
    row = await tx.db.fetchrow(BY_CERTIFICATE, der)
    return _authority(row) if row else None


async def default(tx: Tx) -> Authority | None:
    row = await tx.db.fetchrow(DEFAULT)
    return _authority(row) if row else None


async def every(tx: Tx) -> list[Authority]:
    """All of them, retired and expired ones too."""
    return [_authority(row) for row in await tx.db.fetch(LIST)]


async def names(tx: Tx) -> dict[int, tuple[str, int]]:
    """Name and generation of every authority, of accounts too, by id."""
    return {row["id"]: (row["name"], row["generation"]) for row in await tx.db.fetch(NAMES)}


async def trusted(tx: Tx, now: datetime) -> list[Authority]:
    """Those that are valid now and not distrusted; retired ones too: their leaves still live."""
    return [_authority(row) for row in await tx.db.fetch(TRUSTED, now)]


async def serialize(tx: Tx) -> None:
    """Let one transaction at a time make authorities."""
    await tx.db.execute(SERIALIZE, LOCK_ID)


async def lock(tx: Tx, authority: Authority) -> Authority:
    """The authority as it stands now, held until the transaction ends; leaves are issued meanwhile."""
    row = await tx.db.fetchrow(LOCK, authority.id)
    return _authority(row) if row else authority


async def add(tx: Tx, authority: Authority, key: str) -> Authority:
    """`key`: PKCS#8 PEM; empty: trusted only. Raises: Refusal DUPLICATE from the transaction."""
    sealed = tx.sealer.seal(key, context(authority.name, authority.generation)) if key else None
    row = await tx.db.fetchrow(
        INSERT, authority.name, authority.generation, authority.certificate, list(authority.chain), sealed,
        authority.key_type, authority.serial, authority.subject, authority.not_before, authority.not_after,
        authority.is_default, authority.of_account,
    )  # fmt: skip
    assert row is not None
    return replace(authority, id=row["id"], created_at=row["created_at"])


async def retire(tx: Tx, authority: Authority, at: datetime) -> None:
    await tx.db.execute(RETIRE, authority.id, at)


async def distrust(tx: Tx, authority: Authority, at: datetime | None) -> None:
    """None: trust it again."""
    await tx.db.execute(DISTRUST, authority.id, at)


async def end(tx: Tx, authority_id: int, at: datetime) -> None:
    """Retire and distrust it, and destroy its key: it signs nothing any more, no CRL either."""
    await tx.db.execute(END, authority_id, at)


async def has_issued(tx: Tx, authority_id: int) -> bool:
    return bool(await tx.db.fetchval(HAS_ISSUED, authority_id))


async def delete(tx: Tx, authority_id: int) -> None:
    """Raises: Refusal IN_USE from the transaction, when it has issued something."""
    await tx.db.execute(DELETE, authority_id)


async def set_default(tx: Tx, authority: Authority) -> None:
    """Needs `serialize` before it."""
    await tx.db.execute(CLEAR_DEFAULT)
    await tx.db.execute(SET_DEFAULT, authority.id)


async def key(tx: Tx, authority: Authority) -> tuple[str, bool]:
    """The private key in PEM (empty: there is none), and whether it may sign certificates, as they stand now."""
    row = await tx.db.fetchrow(KEY, authority.id)
    if row is None or row["key"] is None:
        return "", False
    return tx.sealer.open(row["key"], context(row["name"], row["generation"])), row["may_issue"]


async def next_crl_number(tx: Tx, authority: Authority) -> int:
    """Greater than every number before. Entries that are read after it, in the same transaction, belong to it."""
    number: int = await tx.db.fetchval(BUMP, authority.id)
    return number


async def responder(tx: Tx, authority: Authority, now: datetime, until: datetime) -> tuple[bytes, str] | None:
    """Certificate (DER) and key (PEM) of the responder that is good from `now` to `until`; None: there is none."""
    row = await tx.db.fetchrow(RESPONDER, authority.id, now, until)
    return (row["der"], tx.sealer.open(row["key"], responder_context(authority.id, row["serial"]))) if row else None


async def add_responder(tx: Tx, authority: Authority, certificate_id: int, serial: str, pem: str) -> None:
    sealed = tx.sealer.seal(pem, responder_context(authority.id, serial))
    await tx.db.execute(ADD_RESPONDER, certificate_id, authority.id, sealed)


async def prune_responders(tx: Tx, authority: Authority, now: datetime) -> None:
    """Delete the keys of responders that have expired."""
    await tx.db.execute(PRUNE_RESPONDERS, authority.id, now)
