import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from provisioning.store.migrate import Migration, MigrationError, migrate, migrations
from provisioning.store.sealing import Sealer
from tests.databases import fresh_database


@pytest.fixture
async def empty_url(postgres: str) -> AsyncIterator[str]:
    async with fresh_database(postgres, "template1") as url:
        yield url


async def fetch(url: str, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(statement)
    finally:
        await connection.close()


def test_migrations_are_numbered_from_one_without_a_gap() -> None:
    assert [each.number for each in migrations()] == list(range(1, len(migrations()) + 1))
    assert migrations()[0].name == "registry"


async def test_the_second_time_nothing_is_applied(empty_url: str, sealer: Sealer) -> None:
    assert await migrate(empty_url, sealer) == migrations()
    assert await migrate(empty_url, sealer) == []
    recorded = await fetch(empty_url, "SELECT name FROM migration ORDER BY number")
    assert [row["name"] for row in recorded] == [each.name for each in migrations()]


async def test_two_at_once_apply_each_once(empty_url: str, sealer: Sealer) -> None:
    applied = await asyncio.gather(*(migrate(empty_url, sealer) for _ in range(4)))
    assert sorted(map(len, applied)) == [0, 0, 0, len(migrations())]


async def test_every_constraint_has_a_name_of_ours(database_url: str) -> None:
    """Refusals and people read them: none may be made up by PostgreSQL."""
    rows = await fetch(
        database_url,
        "SELECT conname FROM pg_constraint c JOIN pg_namespace n ON n.oid = connamespace WHERE nspname = 'public' "
        "AND contype <> 'n'",
    )
    names = {row["conname"] for row in rows}
    assert {"product_protocol_key", "device_product_key", "identifier_pkey", "device_activated"} <= names
    assert not [name for name in names if name.endswith(("_check", "_key1", "_fkey1"))]


async def test_a_changed_migration_is_refused(database_url: str, sealer: Sealer) -> None:
    await fetch(database_url, "UPDATE migration SET digest = 'x' WHERE number = 1")
    with pytest.raises(MigrationError, match="migration 0001 was changed after it was applied"):
        await migrate(database_url, sealer)


async def test_a_newer_database_is_refused(database_url: str, sealer: Sealer) -> None:
    await fetch(database_url, "INSERT INTO migration (number, name, digest) VALUES (9000, 'later', '')")
    with pytest.raises(MigrationError, match="has migration 9000, which this release does not know: upgrade"):
        await migrate(database_url, sealer)


async def test_another_master_key_is_refused(database_url: str) -> None:
    with pytest.raises(MigrationError, match=r"master key: .* another master key"):
        await migrate(database_url, Sealer(bytes(32)))


@pytest.mark.parametrize("url", ["nonsense", "postgresql://u:gehe/im@h/d", "postgresql://u:gehe#im@h:x/d", "mysql://h"])
async def test_what_is_no_url_is_refused_without_its_password(url: str, sealer: Sealer) -> None:
    with pytest.raises(MigrationError, match="the URL is not of the form") as caught:
        await migrate(url, sealer)
    assert "gehe" not in str(caught.value)


async def test_a_migration_that_fails_leaves_nothing_of_itself(
    empty_url: str, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = migrations()
    broken = [*known, Migration(len(known) + 1, "broken", "CREATE TABLE half (); SELECT 1/0")]
    monkeypatch.setattr("provisioning.store.migrate.migrations", lambda: broken)
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty_url, sealer)
    assert [row["number"] for row in await fetch(empty_url, "SELECT number FROM migration")] == [
        each.number for each in known
    ]
    assert [row["half"] for row in await fetch(empty_url, "SELECT to_regclass('half') AS half")] == [None]
