"""provisioning/core/watch.py"""

import asyncio
from datetime import UTC, datetime

import pytest

from provisioning.core import watch
from provisioning.core.watch import Doubt
from provisioning.model.account import Account
from provisioning.store import modules
from provisioning.store.database import Database
from tests.ublox import OTHER_KEY, make_account, make_devices

NOW = datetime(2030, 1, 1, tzinfo=UTC)
UIDS = [f"000200008928{number:04x}" for number in range(5)]


async def suspected(database: Database) -> dict[tuple[str, str], str]:
    """(uid, reason) -> value."""
    async with database.read() as tx:
        rows = await tx.db.fetch("SELECT uid, reason, value FROM suspicion JOIN module USING (device_id)")
        return {(row["uid"], row["reason"]): row["value"] for row in rows}


async def told(database: Database, account: Account, device_id: int, reason: str, value: str) -> None:
    """As a bootstrap or an import does it: write it, then look."""
    column = {Doubt.DEVICE_SERIAL: "device_serial", Doubt.SERIAL: "serial"}.get(Doubt(reason), "production_serial")
    async with database.begin() as tx:
        await modules.update(tx, device_id, {column: value, "bootstrapped_at": NOW})
        await watch.suspect(tx, account.id, device_id, reason, value, now=NOW)


@pytest.mark.parametrize("reason", Doubt)
async def test_modules_with_one_serial_number_are_suspicious_all_of_them(database: Database, reason: Doubt) -> None:
    account, other = await make_account(database), await make_account(database, OTHER_KEY)
    ids = await make_devices(database, account, UIDS[:4])
    (foreign,) = await make_devices(database, other, UIDS[4:])
    await told(database, account, ids[0], reason, "S1")
    await told(database, other, foreign, reason, "S1")
    await told(database, account, ids[1], reason, "S2")
    assert await suspected(database) == {}, "each is the only one of its account"
    await told(database, account, ids[2], reason, "S1")
    assert await suspected(database) == {(UIDS[0], reason): "S1", (UIDS[2], reason): "S1"}
    await told(database, account, ids[3], reason, "S1")
    await told(database, account, ids[3], reason, "S1")
    assert [uid for uid, _ in sorted(await suspected(database))] == [UIDS[0], UIDS[2], UIDS[3]]


async def test_many_at_once(database: Database) -> None:
    """As an import finds them: among themselves, and with those that were there."""
    account = await make_account(database)
    ids = await make_devices(database, account, UIDS[:1], serial="S1")
    ids += await make_devices(database, account, UIDS[1:3], serial="S2")
    ids += await make_devices(database, account, UIDS[3:4], serial="S1")
    ids += await make_devices(database, account, UIDS[4:])
    values = ["S1", "S2", "S2", "S1", None]
    rows = [(account.id, device_id, value) for device_id, value in zip(ids, values, strict=True)]
    async with database.begin() as tx:
        await watch.suspect_all(tx, Doubt.PRODUCTION_SERIAL, rows[1:], now=NOW)
        await watch.suspect_all(tx, Doubt.DEVICE_SERIAL, rows, now=NOW)
    reason = Doubt.PRODUCTION_SERIAL
    found = await suspected(database)
    assert found == {(uid, reason): value for uid, value in zip(UIDS, values, strict=True) if value}


async def test_a_reason_that_there_is_not(database: Database) -> None:
    async with database.begin() as tx:
        with pytest.raises(ValueError, match="HUNCH"):
            await watch.suspect(tx, 1, 1, "HUNCH", "S1", now=NOW)


async def test_of_several_at_once_all_are_found(database: Database) -> None:
    account = await make_account(database)
    ids = await make_devices(database, account, UIDS)
    await asyncio.gather(*(told(database, account, each, Doubt.SERIAL, "S1") for each in ids))
    assert [uid for uid, _ in sorted(await suspected(database))] == UIDS
