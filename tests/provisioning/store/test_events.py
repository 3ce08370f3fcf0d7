from provisioning.model.events import DeviceRegistered, DeviceReset
from provisioning.store import events
from provisioning.store.database import Database
from tests.provisioning.store.registry import execute, identity


async def test_pages_follow_each_other(database: Database) -> None:
    async with database.begin() as tx:
        tx.emit(*(DeviceRegistered(device_id=i, identity=identity(f"d{i}")) for i in range(5)))
        tx.emit(DeviceReset(device_id=3, identity=identity("d3")))
    async with database.read() as tx:
        first = await events.page(tx, limit=4)
        rest = await events.page(tx, first[-1].id)
        assert [event.device_id for event in first + rest] == [0, 1, 2, 3, 4, 3]
        assert [event.kind for event in await events.page(tx, device_id=3)] == ["device.registered", "device.reset"]
        assert await events.page(tx, rest[-1].id) == []


async def test_prune_deletes_what_is_old_a_batch_at_a_time(database: Database) -> None:
    async with database.begin() as tx:
        tx.emit(*(DeviceRegistered(device_id=i, identity=identity()) for i in range(5)))
    await execute(database, "UPDATE event SET at = now() - interval '31 days' WHERE device_id < 3")
    async with database.begin() as tx:
        assert await events.prune(tx, 32) == 0
        assert await events.prune(tx, 30, batch=2) == 2
        assert await events.prune(tx, 30, batch=2) == 1
        assert await events.prune(tx, 30, batch=2) == 0
        assert [event.device_id for event in await events.page(tx)] == [3, 4]
