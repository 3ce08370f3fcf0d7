from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from provisioning.core import ca, certify, inventory
from provisioning.store import certificates, diagnosis
from provisioning.store.database import Database
from provisioning.store.migrate import migrations
from provisioning.store.sealing import Sealer
from tests.certificates import KEY, NOW, add_device, days, issue, run
from tests.databases import fresh_database


async def asked(url: str, sealer: Sealer | None) -> diagnosis.Server:
    async with diagnosis.connected(url, 10) as connection:
        return await diagnosis.server(connection, sealer)


async def test_a_database_of_this_release(database_url: str, sealer: Sealer) -> None:
    before = datetime.now(UTC)
    found = await asked(database_url, sealer)
    assert (found.pending, found.unknown, found.changed, found.key_fits) == ((), (), (), True)
    assert not found.is_standby
    assert found.version.startswith(str(found.number // 10_000))
    assert abs(found.clock - before) < timedelta(seconds=10)
    assert (await asked(database_url, None)).key_fits is None
    assert (await asked(database_url, Sealer(bytes(32)))).key_fits is False


async def test_an_empty_database(postgres: str, sealer: Sealer) -> None:
    async with fresh_database(postgres, "template0") as url:
        found = await asked(url, sealer)
        assert found.pending == tuple(f"{each.number:04} {each.name}" for each in migrations())
        assert found.key_fits is None
        assert (await asked(url, sealer)).pending, "it was looked at, not migrated"


async def test_a_database_of_another_release(database_url: str, sealer: Sealer) -> None:
    async with diagnosis.connected(database_url, 10) as connection:
        await connection.execute("UPDATE migration SET digest = 'x' WHERE number = 2")
        await connection.execute("INSERT INTO migration (number, name, digest) VALUES (9999, 'later', 'x')")
    found = await asked(database_url, sealer)
    assert (found.unknown, found.changed) == ((9999,), (2,))


async def test_notifications_are_heard_or_not(postgres: str, database_url: str) -> None:
    async with (
        diagnosis.connected(database_url, 10) as one,
        diagnosis.connected(database_url, 10) as two,
        diagnosis.connected(postgres, 10) as elsewhere,
    ):
        assert await diagnosis.hears(one, two, 10)
        assert not await diagnosis.hears(one, elsewhere, 0.1)


async def test_a_database_that_is_not_there(database_url: str) -> None:
    with pytest.raises((OSError, asyncpg.PostgresError)):
        await asked(database_url.replace("/test_", "/nowhere_"), None)


async def counts(database: Database) -> tuple[int, ...]:
    async with database.read() as tx:
        found = await diagnosis.inventory(tx, NOW, NOW + days(30))
    return found.devices, found.expired, found.expiring, found.waiting, found.urgent


async def test_devices_are_counted_by_the_certificate_that_lives_longest(database: Database) -> None:
    authority = await run(database, ca.create, "acme", KEY, now=NOW)
    assert await counts(database) == (0, 0, 0, 0, 0)
    expired, expiring, well, revoked = [await add_device(database, f"dk{n}") for n in range(4)]
    past = NOW - days(100)
    for device, begin, length in (
        (expired, past, 50), (expired, past, 99), (expiring, past, 50), (expiring, past, 110), (well, NOW, 29),
        (well, NOW, 31), (revoked, past, 50),
    ):  # fmt: skip
        made = await issue(database, authority, device=device, days=length, now=max(begin, NOW - timedelta(minutes=1)))
        async with database.begin() as tx:
            await tx.db.execute("UPDATE certificate SET not_before = $2, not_after = $3 WHERE id = $1", made.id,
                                past - days(1), begin + days(length))  # fmt: skip
    await run(database, inventory.revoke_of_device, revoked.id, now=NOW)
    await issue(database, authority, days=9)  # no device's
    assert await counts(database) == (3, 1, 1, 0, 0)


async def test_predecessors_wait_until_their_successor_is_used(database: Database) -> None:
    authority = await run(database, ca.create, "acme", KEY, now=NOW)
    device = await add_device(database)
    near, far = [await issue(database, authority, device=device, days=length) for length in (20, 300)]
    new = [await run(database, certify.renew, authority, each, now=NOW, days=365) for each in (near, far)]
    assert await counts(database) == (1, 0, 0, 2, 1)
    await run(database, certificates.note_seen, {new[0].id: NOW})
    assert await counts(database) == (1, 0, 0, 1, 0)
    await run(database, inventory.revoke, far, now=NOW)
    assert await counts(database) == (1, 0, 0, 0, 0)


async def test_the_newest_beginning(database: Database) -> None:
    async def newest() -> datetime | None:
        async with database.read() as tx:
            return await diagnosis.newest(tx)

    assert await newest() is None
    authority = await run(database, ca.create, "acme", KEY, now=NOW - days(3))
    assert await newest() == authority.not_before
    made = await issue(database, authority)
    assert await newest() == made.not_before > authority.not_before
