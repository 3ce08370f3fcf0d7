"""Tokens: one after the other, hashes alone, and what is certain about one that is no longer good."""

from datetime import UTC, datetime, timedelta

import pytest

from provisioning.core import tokens
from provisioning.model.claim import TokenEnd
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device
from provisioning.store import tokens as store
from provisioning.store.database import Database
from tests.provisioning.store.registry import add_fleet, execute

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
async def device(database: Database) -> Device:
    return (await add_fleet(database)).device


async def issue(database: Database, device: Device, minute: int) -> str:
    async with database.begin() as tx:
        return await tokens.issue(tx, device, now=NOW + timedelta(minutes=minute))


async def known(database: Database, token: str, minute: int = 60) -> str:
    """`good`, or what is known of a token that is not."""
    try:
        async with database.begin() as tx:
            await tokens.recognise(tx, token, now=NOW + timedelta(minutes=minute))
    except Refusal as refusal:
        assert refusal.reason is Reason.NOT_PROVEN  # noqa: PT017 - either is fine
        return str(refusal.detail["known"]) or "unknown"
    return "good"


async def test_a_token_leads_to_its_device_and_is_not_kept(database: Database, device: Device) -> None:
    token = await issue(database, device, 0)
    async with database.begin() as tx:
        assert (await tokens.recognise(tx, token, now=NOW)).identity == device.identity
        rows = await tx.db.fetch("SELECT * FROM token")
    assert token not in repr(rows)
    assert await known(database, token + "x") == await known(database, "") == "unknown"


async def test_using_the_newer_one_ends_the_older_ones(database: Database, device: Device) -> None:
    first, second, third = [await issue(database, device, minute) for minute in range(3)]
    assert await known(database, first) == "good"
    assert await known(database, second) == "good"
    assert [await known(database, each) for each in (first, second, third)] == ["replaced", "good", "good"]
    assert [await known(database, each) for each in (first, second, third)] == ["replaced", "replaced", "good"]


async def test_using_an_older_one_again_ends_nothing(database: Database, device: Device) -> None:
    first = await issue(database, device, 0)
    assert await known(database, first) == "good"
    second = await issue(database, device, 1)
    assert await known(database, first) == "good"
    assert await known(database, second) == "good"


async def test_unused_ones_are_few_and_forgotten_in_the_end(database: Database, device: Device) -> None:
    used = await issue(database, device, 0)
    await known(database, used)
    many = [await issue(database, device, minute) for minute in range(1, tokens.MOST_UNUSED + 3)]
    async with database.begin() as tx:
        found = await tokens.count(tx, device, now=NOW + timedelta(minutes=tokens.MOST_UNUSED + 2, seconds=30))
        assert (found.live, found.used, found.recent) == (tokens.MOST_UNUSED + 1, 1, 1)
        await tokens.issue(tx, device, now=NOW + tokens.FORGOTTEN + timedelta(hours=1))
    assert await known(database, many[0]) == "unknown"
    assert await known(database, many[2]) == "replaced", "the newest one took its place a moment ago"
    assert await known(database, used) == "good"


async def test_what_a_revoked_token_and_a_deleted_device_leave(database: Database, device: Device) -> None:
    first, second = await issue(database, device, 0), await issue(database, device, 1)
    async with database.begin() as tx:
        await store.revoke_all(tx, device.id, TokenEnd.RELEASED, NOW)
    assert await known(database, first) == "released"
    third = await issue(database, device, 2)
    await execute(database, "DELETE FROM device WHERE id = $1", device.id)
    assert [await known(database, each) for each in (first, second, third)] == ["deleted"] * 3
