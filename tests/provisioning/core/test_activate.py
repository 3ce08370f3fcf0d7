import asyncio

import pytest

from provisioning.core.activate import LoginWrites
from provisioning.model.credential import Credential
from provisioning.model.lifecycle import State
from provisioning.model.refusal import Reason, Refusal
from provisioning.store import devices, events, logins
from provisioning.store.database import Database
from tests.provisioning.store.registry import Fleet, add_device, add_fleet, execute, identity


@pytest.fixture
async def fleet(database: Database) -> Fleet:
    return await add_fleet(database)


async def credential(database: Database, device: str = "dk") -> Credential:
    async with database.read() as tx:
        (found,) = await logins.look_up(tx, [identity(device)])
    assert isinstance(found, Credential)
    return found


async def kinds(database: Database) -> list[tuple[str, str]]:
    async with database.read() as tx:
        return [(event.kind, event.device) for event in await events.page(tx, limit=1_000)]


async def activations(database: Database) -> int:
    async with database.read() as tx:
        count: int = await tx.db.fetchval("SELECT activations FROM device WHERE key = 'dk'")
    return count


async def test_the_limit_holds_for_sessions_that_race(database: Database, fleet: Fleet) -> None:
    """Twenty at once, in one group and in two processes: five get the secret, and five are counted."""
    one, two = LoginWrites(database, limit=5), LoginWrites(database, limit=5)
    found = await credential(database)
    results = await asyncio.gather(
        *(writes.issue(found) for _ in range(10) for writes in (one, two)), return_exceptions=True
    )
    refusals = [result for result in results if isinstance(result, Refusal)]
    assert len(results) - len(refusals) == 5
    assert {refusal.reason for refusal in refusals} == {Reason.ACTIVATION_SPENT}
    assert await activations(database) == 5
    assert await kinds(database) == [("device.secret_issued", "dk")] * 5
    assert one.depth == two.depth == 0
    await one.close()
    await two.close()


async def test_what_comes_together_is_committed_together(database: Database, fleet: Fleet) -> None:
    async with database.begin() as tx:
        for i in range(50):
            await add_device(tx, fleet.product, f"many{i}")
    found = [await credential(database, f"many{i}") for i in range(50)]
    writes = LoginWrites(database, limit=5)
    await asyncio.gather(*map(writes.issue, found))
    await asyncio.gather(*map(writes.activate, found))  # at once with the others, it might overtake them
    async with database.read() as tx:
        transactions = await tx.db.fetchval("SELECT count(DISTINCT xmin::text) FROM event")
        states = await tx.db.fetch("SELECT state, activations FROM device WHERE key LIKE 'many%'")
    assert transactions == 2
    assert {tuple(row) for row in states} == {("activated", 1)}
    assert len(await kinds(database)) == 100


async def test_only_the_first_login_is_an_event(database: Database, fleet: Fleet) -> None:
    writes = LoginWrites(database, limit=5)
    found = await credential(database)
    await asyncio.gather(*(writes.activate(found) for _ in range(5)))
    await writes.activate(found)
    assert await kinds(database) == [("device.activated", "dk")]
    async with database.read() as tx:
        device = await devices.by_id(tx, fleet.device.id)
    assert device is not None
    assert device.state is State.ACTIVATED


async def test_after_the_first_login_no_secret_is_issued(database: Database, fleet: Fleet) -> None:
    writes = LoginWrites(database, limit=5)
    found = await credential(database)
    await writes.activate(found)
    with pytest.raises(Refusal, match="activation_spent"):
        await writes.issue(found)


async def test_a_closed_activation_stays_closed(database: Database, fleet: Fleet) -> None:
    writes = LoginWrites(database, limit=5)
    found = await credential(database)
    await writes.issue(found)
    await writes.close_activation(fleet.device.id)
    with pytest.raises(Refusal, match="activation_spent"):
        await writes.issue(found)
    async with database.begin() as tx:
        await devices.reopen_activation(tx, fleet.device)
    await writes.issue(found)


async def test_a_device_that_was_disabled_meanwhile_gets_nothing(database: Database, fleet: Fleet) -> None:
    found = await credential(database)
    await execute(database, "UPDATE device SET disabled = true")
    with pytest.raises(Refusal, match="activation_spent"):
        await LoginWrites(database, limit=5).issue(found)
    assert await kinds(database) == []


async def test_create_adds_one_device_with_one_event(database: Database, fleet: Fleet) -> None:
    writes = LoginWrites(database, limit=5)
    unknown = await credential(database, "new")
    assert unknown.device is None
    await asyncio.gather(*(writes.create(unknown) for _ in range(5)))
    assert (await credential(database, "new")).device is not None
    assert await kinds(database) == [("device.registered", "new")]


async def test_who_goes_away_leaves_the_others_their_answers(database: Database, fleet: Fleet) -> None:
    writes = LoginWrites(database, limit=5)
    found = await credential(database)
    gone, stays = asyncio.create_task(writes.issue(found)), asyncio.create_task(writes.issue(found))
    await asyncio.sleep(0)
    gone.cancel()
    await stays
    assert await activations(database) == 2
    await writes.close()


async def test_close_writes_what_was_submitted(database: Database, fleet: Fleet) -> None:
    writes = LoginWrites(database, limit=5)
    task = asyncio.create_task(writes.activate(await credential(database)))
    await asyncio.sleep(0)
    await writes.close()
    await task
    assert await kinds(database) == [("device.activated", "dk")]


async def test_without_a_database_it_says_unavailable(database: Database, fleet: Fleet) -> None:
    writes = LoginWrites(database, limit=5)
    found = await credential(database)
    await database.pool.close()
    for work in (writes.issue(found), writes.activate(found), writes.create(found), writes.close_activation(1)):
        with pytest.raises(Refusal) as caught:
            await work
        assert caught.value.reason is Reason.UNAVAILABLE
