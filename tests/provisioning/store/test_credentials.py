import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from provisioning.model.credential import Credential
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal
from provisioning.store import credentials as module
from provisioning.store import logins
from provisioning.store.credentials import Credentials
from provisioning.store.database import Database, Tx
from provisioning.store.sealing import SealError
from tests.conftest import until
from tests.provisioning.store.registry import Fleet, add_device, add_fleet, execute, identity


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class LookUps:
    """The real look-up, counted; `hold` keeps its answers back after they were read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[list[Identity]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.read = 0
        look_up = logins.look_up

        async def counted(tx: Tx, identities: Sequence[Identity]) -> list[Credential | SealError]:
            self.batches.append(list(identities))
            found = await look_up(tx, identities)
            self.read += 1
            await self.gate.wait()
            return found

        monkeypatch.setattr(logins, "look_up", counted)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        self.gate.clear()
        yield
        self.gate.set()


@pytest.fixture
async def fleet(database: Database) -> Fleet:
    return await add_fleet(database)


@pytest.fixture
def look_ups(monkeypatch: pytest.MonkeyPatch) -> LookUps:
    return LookUps(monkeypatch)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def cache(database: Database, fleet: Fleet, look_ups: LookUps, clock: Clock) -> AsyncIterator[Credentials]:
    cache = Credentials(database, size=100, negative_ttl=2.0, clock=clock)
    cache.serve()
    yield cache
    await cache.close()


async def test_a_miss_is_looked_up_and_kept(cache: Credentials, fleet: Fleet, look_ups: LookUps) -> None:
    assert cache.get(fleet.identity) is None
    found = await cache.look_up(fleet.identity)
    assert found.device is not None
    assert found.device.secret == fleet.device.secret
    assert cache.get(fleet.identity) is found
    assert (len(cache), look_ups.batches) == (1, [[fleet.identity]])


async def test_misses_of_one_moment_share_a_look_up(cache: Credentials, look_ups: LookUps) -> None:
    asked = [identity("dk"), identity("nobody"), identity("dk"), identity("dk-sn")]
    found = await asyncio.gather(*map(cache.look_up, asked))
    assert [one.identity for one in found] == asked
    assert look_ups.batches == [asked]


async def test_who_is_missing_is_remembered_for_a_while(cache: Credentials, look_ups: LookUps, clock: Clock) -> None:
    found = await cache.look_up(identity("nobody"))
    assert (found.product is not None, found.device) == (True, None)
    clock.now += 1.9
    assert cache.get(identity("nobody")) is found
    clock.now += 0.2
    assert cache.get(identity("nobody")) is None
    assert len(cache) == 0


async def test_known_devices_are_remembered_as_long_as_nothing_changes(
    cache: Credentials, fleet: Fleet, clock: Clock
) -> None:
    found = await cache.look_up(fleet.identity)
    clock.now += 1e6
    assert cache.get(fleet.identity) is found


async def test_a_change_during_a_look_up_is_not_missed(
    cache: Credentials, database: Database, fleet: Fleet, look_ups: LookUps
) -> None:
    """The answer was read before the change and arrives after it."""
    async with look_ups.held():
        task = asyncio.create_task(cache.look_up(fleet.identity))
        await until(lambda: look_ups.read == 1, "the look-up")
        await execute(database, "UPDATE device SET disabled = true WHERE key = 'dk'")
        cache.forget(fleet.identity)
    found = await task
    assert found.device is not None
    assert found.device.disabled
    assert len(look_ups.batches) == 2
    assert cache.get(fleet.identity) is found


async def test_a_change_of_the_product_during_a_look_up_is_not_missed(
    cache: Credentials, database: Database, fleet: Fleet, look_ups: LookUps
) -> None:
    async with look_ups.held():
        task = asyncio.create_task(cache.look_up(fleet.identity))
        await until(lambda: look_ups.read == 1, "the look-up")
        await execute(database, "UPDATE product SET dynamic_activation = false")
        cache.forget_product("proto", "pk")
    found = await task
    assert found.product is not None
    assert not found.product.dynamic_activation


async def test_changes_of_others_do_not_disturb_a_look_up(cache: Credentials, fleet: Fleet, look_ups: LookUps) -> None:
    """Or devices that enrol by the hundred would keep all others from logging in."""
    async with look_ups.held():
        task = asyncio.create_task(cache.look_up(fleet.identity))
        await until(lambda: look_ups.read == 1, "the look-up")
        for i in range(100):
            cache.forget(identity(f"other{i}"))
            cache.forget_product("proto", "other")
            cache.forget_product("other", "pk")
            cache.forget_missing()
    assert cache.get((await task).identity) is not None
    assert len(look_ups.batches) == 1


async def test_a_missing_device_that_is_added_meanwhile_is_not_remembered_as_missing(
    cache: Credentials, database: Database, fleet: Fleet, look_ups: LookUps
) -> None:
    async with look_ups.held():
        task = asyncio.create_task(cache.look_up(identity("new")))
        await until(lambda: look_ups.read == 1, "the look-up")
        async with database.begin() as tx:
            await add_device(tx, fleet.product, "new")
        cache.forget_missing()
    assert (await task).device is None  # it was true when it was asked
    assert cache.get(identity("new")) is None
    assert (await cache.look_up(identity("new"))).device is not None


async def test_a_device_that_never_rests_is_refused_for_now(
    cache: Credentials, fleet: Fleet, look_ups: LookUps, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = cache._fetch

    async def changed(identities: Sequence[Identity]) -> list[Credential | Exception]:
        found = await fetch(identities)
        cache.forget(fleet.identity)
        return found

    monkeypatch.setattr(cache._batcher, "_run", changed)
    with pytest.raises(Refusal) as caught:
        await cache.look_up(fleet.identity)
    assert caught.value.reason is Reason.UNAVAILABLE
    assert len(look_ups.batches) == module.TRIES


async def test_watches_say_what_happened_and_leave_nothing_behind(cache: Credentials, fleet: Fleet) -> None:
    changes: list[tuple[Callable[[], None], bool]] = [
        (lambda: cache.forget(fleet.identity), True),
        (lambda: cache.forget_product("proto", "pk"), True),
        (cache.serve, True),
        (cache.suspend, True),
        (lambda: cache.forget(identity("other")), False),
        (lambda: cache.forget_product("proto", "other"), False),
        (cache.forget_missing, False),
    ]
    for change, expected in changes:
        with cache.watch(fleet.identity) as outer, cache.watch(fleet.identity) as inner:
            change()
        assert (outer.changed, inner.changed) == (expected, expected)
    assert cache._watches == {}


async def test_forget(cache: Credentials, fleet: Fleet) -> None:
    everybody = [fleet.identity, identity("dk-sn"), identity("nobody"), identity("dk", "nothing")]

    async def fill() -> None:
        for one in everybody:
            await cache.look_up(one)

    def kept() -> list[bool]:
        return [cache.get(one) is not None for one in everybody]

    await fill()
    cache.forget(fleet.identity)
    cache.forget(identity("nobody"))
    assert kept() == [False, True, False, True]
    await fill()
    cache.forget_product("proto", "pk")
    assert kept() == [False, False, False, True]
    await fill()
    cache.forget_missing()
    assert kept() == [True, True, False, False]
    await fill()
    cache.serve()
    assert kept() == [False] * 4


async def test_the_cache_is_bounded_and_the_longest_unused_go(
    database: Database, fleet: Fleet, look_ups: LookUps, clock: Clock
) -> None:
    cache = Credentials(database, size=2, negative_ttl=2.0, clock=clock)
    cache.serve()
    async with database.begin() as tx:
        await add_device(tx, fleet.product, "third")
    first, second, third = identity("dk"), identity("dk-sn"), identity("third")
    await cache.look_up(first)
    await cache.look_up(second)
    assert cache.get(first) is not None
    await cache.look_up(third)
    assert [cache.get(one) is not None for one in (first, second, third)] == [True, False, True]
    for i in range(10):
        await cache.look_up(identity(f"nobody{i}"))
    assert len(cache) == 3


async def test_nothing_is_served_while_changes_are_not_reported(
    cache: Credentials, fleet: Fleet, look_ups: LookUps
) -> None:
    await cache.look_up(fleet.identity)
    cache.suspend()
    for _ in range(2):
        assert cache.get(fleet.identity) is None
        assert (await cache.look_up(fleet.identity)).device is not None
    assert (len(cache), len(look_ups.batches)) == (0, 3)
    cache.serve()
    found = await cache.look_up(fleet.identity)
    assert cache.get(fleet.identity) is found


async def test_mark_activated_spares_the_next_login_its_write(cache: Credentials, fleet: Fleet) -> None:
    found = await cache.look_up(fleet.identity)
    cache.mark_activated(found)
    known = cache.get(fleet.identity)
    assert known is not None
    assert known.device is not None
    assert known.device.activated
    cache.forget(fleet.identity)
    cache.mark_activated(found)
    assert cache.get(fleet.identity) is None


async def test_a_waiter_that_goes_hinders_nobody(cache: Credentials, fleet: Fleet, look_ups: LookUps) -> None:
    async with look_ups.held():
        gone = asyncio.create_task(cache.look_up(fleet.identity))
        stays = asyncio.create_task(cache.look_up(fleet.identity))
        await until(lambda: look_ups.read == 1, "the look-up")
        gone.cancel()
    assert (await stays).device is not None
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert cache._watches == {}


async def test_a_damaged_secret_turns_away_its_own_device_alone(cache: Credentials, database: Database) -> None:
    await execute(database, "UPDATE device SET secret = secret || '\\x00'::bytea WHERE key = 'dk'")
    damaged, fine = await asyncio.gather(
        cache.look_up(identity("dk")), cache.look_up(identity("dk-sn")), return_exceptions=True
    )
    assert isinstance(damaged, Refusal)
    assert damaged.reason is Reason.INTERNAL
    assert "device|proto|pk|dk is damaged" in str(damaged)
    assert isinstance(fine, Credential)


async def test_without_a_database_it_says_unavailable(cache: Credentials, database: Database) -> None:
    await database.pool.close()
    with pytest.raises(Refusal) as caught:
        await cache.look_up(identity())
    assert caught.value.reason is Reason.UNAVAILABLE
    assert cache._watches == {}


async def test_devices_of_a_product_share_what_is_known_of_it(cache: Credentials, fleet: Fleet) -> None:
    """There are a hundred thousand of them in a cache, and a handful of products."""
    both = [await cache.look_up(replace_device(fleet.identity, name)) for name in (fleet.identity.device, "nobody")]
    assert both[0].product is not None
    assert both[0].product is both[1].product


def replace_device(identity: Identity, device: str) -> Identity:
    return identity._replace(device=device)
