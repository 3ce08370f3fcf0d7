import asyncio
import contextlib
import json
from collections.abc import Sequence

import asyncpg
import pytest

from provisioning.model.events import DeviceDisabled, DeviceRegistered, Event
from provisioning.model.refusal import Reason, Refusal
from provisioning.store import devices, events, groups, products
from provisioning.store.database import Database, open_database, refusal_of
from provisioning.store.sealing import Sealer
from tests.conftest import until
from tests.provisioning.store.registry import add_device, add_fleet, add_group, add_product, identity, locked_out


async def refused(database: Database, statement: str, *values: object) -> Refusal:
    with pytest.raises(Refusal) as caught:
        async with database.begin() as tx:
            await tx.db.execute(statement, *values)
    return caught.value


async def test_clashes_name_what_is_taken(database: Database) -> None:
    fleet = await add_fleet(database)

    async def clash(**field: str) -> None:
        with pytest.raises(Refusal) as caught:  # noqa: PT012 - the refusal comes when the transaction ends
            async with database.begin() as tx:
                match field:
                    case {"product": key}:
                        await add_product(tx, key)
                    case {"group": key}:
                        await add_group(tx, key)
                    case {"device": key}:
                        await add_device(tx, fleet.product, key)
                    case {"serial": serial}:
                        await add_device(tx, fleet.product, "new", fleet.group, serial=serial)
        assert caught.value.reason is Reason.DUPLICATE
        assert caught.value.detail == {"field": next(iter(field))}

    await clash(product=fleet.product.key)
    await clash(group=fleet.group.key)
    await clash(device=fleet.device.key)
    await clash(serial=fleet.enrolled.serial)


async def test_what_is_referred_to_is_in_use(database: Database) -> None:
    fleet = await add_fleet(database)
    for statement, which in (("product", fleet.product.id), ("enrolment_group", fleet.group.id)):
        refusal = await refused(database, f"DELETE FROM {statement} WHERE id = $1", which)
        assert refusal.reason is Reason.IN_USE


async def test_our_own_mistakes_are_not_refusals(database: Database) -> None:
    with pytest.raises(asyncpg.UndefinedTableError):
        async with database.begin() as tx:
            await tx.db.execute("SELECT FROM nowhere")
    with pytest.raises(asyncpg.UndefinedTableError):
        async with database.read() as tx:
            await tx.db.execute("SELECT FROM nowhere")
    assert refusal_of(ValueError("x")) is None


async def test_a_refusal_passes_through_and_rolls_back(database: Database) -> None:
    with pytest.raises(Refusal, match="stale"):  # noqa: PT012 - the refusal comes when the transaction ends
        async with database.begin() as tx:
            await add_product(tx)
            raise Refusal(Reason.STALE)
    async with database.read() as tx:
        assert await products.registry_is_empty(tx)


async def test_a_snapshot_does_not_move(database: Database) -> None:
    async with database.snapshot() as before:
        assert await products.registry_is_empty(before)  # the state is taken by the first statement
        await add_fleet(database)
        assert await products.registry_is_empty(before)
    async with database.snapshot() as after:
        assert not await products.registry_is_empty(after)


async def test_a_snapshot_changes_nothing(database: Database) -> None:
    with pytest.raises(Refusal) as caught:
        async with database.snapshot() as tx:
            await tx.db.execute("DELETE FROM product")
    assert caught.value.reason is Reason.UNAVAILABLE  # as on a standby


async def test_a_deadlock_is_for_trying_again(database: Database) -> None:
    fleet = await add_fleet(database)
    both = asyncio.Barrier(2)
    statement = "UPDATE device SET name = 'x' WHERE id = $1"

    async def lock(first: int, second: int) -> None:
        async with database.begin() as tx:
            await tx.db.execute("SET deadlock_timeout = '10ms'")
            await tx.db.execute(statement, first)
            await both.wait()
            await tx.db.execute(statement, second)

    one, two = fleet.device.id, fleet.enrolled.id
    results = await asyncio.gather(lock(one, two), lock(two, one), return_exceptions=True)
    (refusal,) = [result for result in results if result is not None]
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.UNAVAILABLE


async def test_a_full_pool_is_unavailable_and_recovers(database_url: str, sealer: Sealer) -> None:
    async with open_database(database_url, sealer, pool_min=1, pool_max=2, timeout=0.2) as database:
        async with database.read(), database.begin():
            with pytest.raises(Refusal) as caught:
                async with database.read():
                    pytest.fail("there was a third connection")
            assert caught.value.reason is Reason.UNAVAILABLE
            assert not await database.answers()
        assert await database.answers()


async def test_a_statement_that_hangs_is_unavailable(database_url: str, sealer: Sealer) -> None:
    async with open_database(database_url, sealer, timeout=0.2) as database:
        assert (await refused(database, "SELECT pg_sleep(60)")).reason is Reason.UNAVAILABLE
        assert await database.answers()


async def test_the_database_goes_and_comes_back(postgres: str, database: Database) -> None:
    fleet = await add_fleet(database)
    async with locked_out(postgres, database.url):
        for _ in range(12):  # more than the pool has: the broken ones and the new
            with pytest.raises(Refusal) as caught:
                async with database.begin() as tx:
                    await tx.db.execute("SELECT 1")
            assert caught.value.reason is Reason.UNAVAILABLE
        assert not await database.answers()
    await until(database.answers, "the database")
    async with database.read() as tx:
        assert await products.find(tx, fleet.product.protocol, fleet.product.key) is not None


async def test_a_connection_lost_inside_a_transaction_is_unavailable(database: Database) -> None:
    with pytest.raises(Refusal) as caught:  # noqa: PT012 - the refusal comes when the transaction ends
        async with database.begin() as tx:
            pid = await tx.db.fetchval("SELECT pg_backend_pid()")
            async with database.read() as other:
                await other.db.execute("SELECT pg_terminate_backend($1)", pid)
            while True:
                await tx.db.execute("SELECT 1")
    assert caught.value.reason is Reason.UNAVAILABLE
    assert await database.answers()


async def test_what_cannot_be_reached_is_refused_without_its_password(sealer: Sealer) -> None:
    for url in ("postgresql://u:geheim@127.0.0.1:1/d", "postgresql://u:geheim@/d?host=/nowhere", "nonsense"):
        with pytest.raises(Refusal) as caught:
            async with open_database(url, sealer, timeout=2):
                pytest.fail("it was opened")
        assert caught.value.reason is Reason.UNAVAILABLE
        assert "geheim" not in str(caught.value)


# --- events ---


def registered(device_id: int = 1) -> Event:
    return DeviceRegistered(device_id=device_id, identity=identity(), serial="SN")


async def test_events_are_written_with_what_they_tell(database_url: str, sealer: Sealer) -> None:
    heard: list[Event] = []
    async with open_database(database_url, sealer, on_commit=heard.extend) as database:
        async with database.begin() as tx:
            await add_product(tx)
            tx.emit(registered(1), DeviceDisabled(device_id=2, identity=identity("other")))
            assert heard == []
        assert [event.kind for event in heard] == ["device.registered", "device.disabled"]
        async with database.read() as tx:
            stored = await events.page(tx)
    assert [(e.kind, e.device_id, e.protocol, e.product, e.device, e.serial) for e in stored] == [
        ("device.registered", 1, "proto", "pk", "dk", "SN"),
        ("device.disabled", 2, "proto", "pk", "other", ""),
    ]


async def test_what_is_rolled_back_has_not_happened(database_url: str, sealer: Sealer) -> None:
    heard: list[Event] = []
    async with open_database(database_url, sealer, on_commit=heard.extend) as database:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the refusal comes when the transaction ends
            async with database.begin() as tx:
                tx.emit(registered())
                raise ZeroDivisionError
        with pytest.raises(Refusal):  # the constraint speaks at the commit, after the events were written  # noqa: PT012 - the refusal comes when the transaction ends
            async with database.begin() as tx:
                tx.emit(registered())
                await tx.db.execute("INSERT INTO identifier (kind, value, device_id) VALUES ('serial', 'x', 4711)")
        async with database.read() as tx:
            assert await events.page(tx) == []
    assert heard == []


async def test_on_commit_is_told_what_is_durable(database_url: str, sealer: Sealer) -> None:
    """Another connection sees the event at the moment when it is told."""
    seen: list[asyncio.Task[int]] = []

    async def count() -> int:
        connection = await asyncpg.connect(database_url)
        try:
            number: int = await connection.fetchval("SELECT count(*) FROM event")
        finally:
            await connection.close()
        return number

    def told(committed: Sequence[Event]) -> None:
        seen.append(asyncio.ensure_future(count()))

    async with open_database(database_url, sealer, on_commit=told) as database:
        async with database.begin() as tx:
            tx.emit(registered())
        async with database.begin() as tx:
            pass
        assert await asyncio.gather(*seen) == [1]


async def test_a_cancelled_transaction_is_rolled_back_and_its_connection_returned(
    database_url: str, sealer: Sealer
) -> None:
    async with open_database(database_url, sealer, pool_min=1, pool_max=1, timeout=5) as database:
        inside = asyncio.Event()

        async def work() -> None:
            async with database.begin() as tx:
                await add_product(tx)
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        async with database.read() as tx:
            assert await products.registry_is_empty(tx)


async def test_no_secret_stands_in_the_tables(database: Database) -> None:
    fleet = await add_fleet(database)
    async with database.read() as tx:
        for table in ("product", "enrolment_group", "device"):
            rows = [
                json.loads(row["row"]) for row in await tx.db.fetch(f"SELECT to_json(t)::text AS row FROM {table} t")
            ]
            assert rows
            for secret in (fleet.product.secret, fleet.group.password, fleet.device.secret):
                assert secret not in str(rows)
                assert secret.encode().hex() not in str(rows)
        assert await groups.find(tx, "proto", fleet.group.key) == fleet.group
        found = await devices.by_id(tx, fleet.device.id)
    assert found is not None
    assert found.secret == fleet.device.secret
