"""Numbered SQL migrations, each applied once, in order, under one lock."""

from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from typing import Final

import asyncpg

from provisioning.store.sealing import Sealer, SealError

LOCK: Final = 0x6761_7465  # any number that nobody else of this database uses

CREATE_LEDGER: Final = """
    CREATE TABLE IF NOT EXISTS migration (
        number     integer NOT NULL,
        name       text NOT NULL,
        digest     text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT migration_pkey PRIMARY KEY (number)
    )
"""
APPLIED: Final = "SELECT number, digest FROM migration"
RECORD: Final = "INSERT INTO migration (number, name, digest) VALUES ($1, $2, $3)"
SEAL_PROBE: Final = "INSERT INTO meta (key, value) VALUES ('seal', $1) ON CONFLICT (key) DO NOTHING"
READ_PROBE: Final = "SELECT value FROM meta WHERE key = 'seal'"
PROBE: Final = "meta|seal"


class MigrationError(Exception):
    """The database is not one that this release can work with; the text says why."""


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def digest(self) -> str:
        return sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """The migrations of this release, in order."""
    folder = resources.files("provisioning.store") / "migrations"
    found = [entry for entry in folder.iterdir() if entry.name.endswith(".sql")]
    return sorted(
        (Migration(int(entry.name[:4]), entry.name[5:-4], entry.read_text("utf-8")) for entry in found),
        key=lambda migration: migration.number,
    )


async def is_sealed(url: str) -> bool:
    """Are there secrets in the database already?

    Raises:
        OSError, asyncpg.PostgresError: it cannot be reached.
    """
    connection = await asyncpg.connect(url)
    try:
        has_table = await connection.fetchval("SELECT to_regclass('meta') IS NOT NULL")
        return bool(has_table and await connection.fetchval(READ_PROBE))
    finally:
        await connection.close()


async def migrate(url: str, sealer: Sealer) -> list[Migration]:
    """Bring the database at `url` up to this release, and see that `sealer` has its master key.

    Returns what was applied now.

    Raises:
        MigrationError: the URL is none, the database was migrated by a newer release, a migration was changed after it
            was applied, or the database was sealed under another master key.
        OSError, asyncpg.PostgresError: it cannot be reached or refuses the work.
    """
    try:
        connection = await asyncpg.connect(url)
    except ValueError:  # its text may hold a part of the password
        raise MigrationError(
            "the URL is not of the form postgresql://user:password@host/name; percent-encode / # ? @ in a password"
        ) from None
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
        await connection.execute(CREATE_LEDGER)
        applied = {row["number"]: row["digest"] for row in await connection.fetch(APPLIED)}
        known = {migration.number: migration for migration in migrations()}
        if newer := applied.keys() - known.keys():
            raise MigrationError(f"the database has migration {max(newer)}, which this release does not know: upgrade")
        for number, digest in applied.items():
            if known[number].digest != digest:
                raise MigrationError(f"migration {number:04} was changed after it was applied to this database")
        new = [migration for number, migration in sorted(known.items()) if number not in applied]
        for migration in new:
            async with connection.transaction():
                await connection.execute(migration.sql)
                await connection.execute(RECORD, migration.number, migration.name, migration.digest)
        await connection.execute(SEAL_PROBE, sealer.seal("gatehouse", PROBE).hex())
        try:
            sealer.open(bytes.fromhex(await connection.fetchval(READ_PROBE)), PROBE)
        except SealError as error:
            raise MigrationError(f"master key: {error}") from error
        return new
    finally:
        await connection.close()
