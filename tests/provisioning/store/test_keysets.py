"""provisioning/store/keysets.py"""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from provisioning.model.account import Account
from provisioning.model.module import Properties
from provisioning.store import keysets, modules
from provisioning.store.database import Database
from provisioning.store.keysets import Mode, Rotation, Taken
from tests.provisioning.store.registry import execute
from tests.ublox import OTHER_KEY, ROOT_SECRET, make_account, make_devices

pytestmark = pytest.mark.server

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
UID = "0002000089280087"
A, B, C = (bytes([each]) * 6 for each in b"ABC")


@pytest.fixture
async def account(database: Database) -> Account:
    return await make_account(database)


async def take(database: Database, device_id: int, fresh: bytes, now: datetime = NOW) -> Taken:
    async with database.begin() as tx:
        return await keysets.take(tx, device_id, fresh, now)


async def rotate(database: Database, ids: list[int], mode: Mode, days: int | None = None, now: datetime = NOW) -> None:
    async with database.begin() as tx:
        await keysets.rotate(tx, ids, Rotation(mode, days), now)


async def test_without_rotation_the_epoch_stays_and_the_counter_grows(database: Database, account: Account) -> None:
    (device,) = await make_devices(database, account, [UID])
    assert await take(database, device, A) == Taken(A, 1)
    assert await take(database, device, B, NOW + timedelta(days=1_000)) == Taken(A, 2)


async def test_continuous_rotation_takes_a_new_epoch_each_time(database: Database, account: Account) -> None:
    (device,) = await make_devices(database, account, [UID])
    await rotate(database, [device], Mode.CONTINUOUS)
    assert [await take(database, device, each) for each in (A, B, C)] == [Taken(A, 1), Taken(B, 2), Taken(C, 3)]


async def test_automatic_rotation_keeps_an_epoch_for_its_days(database: Database, account: Account) -> None:
    (device,) = await make_devices(database, account, [UID])
    await take(database, device, A)
    await rotate(database, [device], Mode.AUTOMATIC, 2)
    first = await take(database, device, B)
    assert first.epoch not in {A, B}, "the rotation begins with an epoch of its own"
    late = NOW + timedelta(days=2)
    assert await take(database, device, B, late - timedelta(seconds=1)) == Taken(first.epoch, first.counter + 1)
    assert await take(database, device, B, late) == Taken(B, first.counter + 2)
    assert (await take(database, device, C, late + timedelta(days=1))).epoch == B, "counted from the last change"
    await rotate(database, [device], Mode.CONTINUOUS, now=late)
    assert (await take(database, device, C, late)).epoch == C


async def test_before_the_counter_would_wrap_there_is_a_new_epoch(database: Database, account: Account) -> None:
    (device,) = await make_devices(database, account, [UID])
    await take(database, device, A)
    await execute(database, "UPDATE keyset SET counter = 65534")
    assert [await take(database, device, each) for each in (B, C)] == [Taken(A, 65_535), Taken(C, 1)]


async def test_calls_at_the_same_time_get_different_pairs(database: Database, account: Account) -> None:
    (device,) = await make_devices(database, account, [UID])
    taken = await asyncio.gather(*(take(database, device, bytes([each]) * 6) for each in range(12)))
    assert len(set(taken)) == 12
    assert sorted(each.counter for each in taken) == list(range(1, 13))
    assert len({each.epoch for each in taken}) == 1, "one of them made the epoch"


async def test_rotations_of_the_same_devices_do_not_wait_in_a_circle(database: Database, account: Account) -> None:
    ids = await make_devices(database, account, [f"{number:016x}" for number in range(40)])
    await asyncio.gather(*(rotate(database, each, Mode.AUTOMATIC, 1) for each in (ids, ids[::-1]) * 3))
    async with database.read() as tx:
        epochs = [row["epoch"] for row in await tx.db.fetch("SELECT epoch FROM keyset")]
    assert len(set(epochs)) == 40, "each device has an epoch of its own"


async def test_modules_are_told_at_first_and_each_time_their_keys_change(database: Database, account: Account) -> None:
    device, other = await make_devices(database, account, [UID, "0002000089280088"])

    async def due(now: datetime) -> Rotation | None:
        async with database.begin() as tx:
            return await keysets.due(tx, device, now)

    async def told(now: datetime) -> None:
        async with database.begin() as tx:
            await keysets.told(tx, device, now)

    assert await due(NOW) is None, "nobody has ever asked for keys"
    await take(database, device, A)
    assert await due(NOW) is None, "no rotation is set"
    await rotate(database, [device], Mode.AUTOMATIC, 3)
    assert await due(NOW) == Rotation(Mode.AUTOMATIC, 3)
    await told(NOW)
    assert await due(NOW + timedelta(days=3, seconds=-1)) is None
    assert await due(NOW + timedelta(days=3)) == Rotation(Mode.AUTOMATIC, 3)
    await rotate(database, [device, other], Mode.CONTINUOUS)
    assert await due(NOW) == Rotation(Mode.CONTINUOUS)
    await told(NOW)
    assert await due(NOW + timedelta(days=1_000)) is None, "it knows that for good"


@pytest.mark.parametrize(
    ("desired", "shortened"),
    [
        ({}, True),
        ({"beat": (86_401, NOW)}, True),
        ({"beat": (86_400, NOW)}, False),
        ({"beat": (3_600, NOW), "other": ("ENABLED", NOW)}, False),
    ],
    ids=["default", "longer", "equal", "shorter"],
)
async def test_intervals_are_shortened_where_they_are_longer(
    database: Database, account: Account, desired: Properties, shortened: bool
) -> None:
    (device,) = await make_devices(database, account, [UID])
    later = NOW + timedelta(hours=1)
    async with database.begin() as tx:
        await modules.update(tx, device, {"desired": desired, "current": {"beat": (3_600, NOW)}})
        assert await keysets.shorten(tx, [device], "beat", 86_400, default=1_209_600, now=later) == int(shortened)
        (module,) = await modules.by_ids(tx, [device])
    assert module.desired == ({**desired, "beat": (86_400, later)} if shortened else desired)


async def test_owners_are_found_by_the_end_of_their_uids(database: Database, account: Account) -> None:
    other = await make_account(database, OTHER_KEY)
    twins = await make_devices(database, account, ["0001000089280087", "0002000089280087", "0003abcd89280087"])
    await make_devices(database, account, ["0004000011111111"])
    await make_devices(database, other, ["0005000022222222"])

    async def found(tail: str, middle: str, of: Account = account) -> int | None:
        async with database.read() as tx:
            owner = await keysets.owner_by_tail(tx, of, tail, middle)
        return owner.id if owner else None

    assert await found("89280087", "0000") == twins[0], "the first of equals"
    assert await found("89280087", "abcd") == twins[2], "the middle decides"
    assert await found("89280087", "ffff") is None, "none of several"
    assert await found("11111111", "ffff") is not None, "it alone: the middle does not matter"
    assert await found("22222222", "0000") is None, "another account's"
    assert await found("89280088", "0000") is None
    await execute(database, "UPDATE module SET bootstrapped_at = now() WHERE device_id = $1", twins[1])
    assert await found("89280087", "0000") == twins[1], "of equals the one that has bootstrapped"
    async with database.read() as tx:
        owner = await keysets.owner_by_uid(tx, account, "0002000089280087")
        assert owner is not None
        assert (owner.id, owner.secret, owner.disabled) == (twins[1], ROOT_SECRET.hex(), False)
        assert await keysets.owner_by_uid(tx, other, "0002000089280087") is None
