"""The table of tokens: what its constraints and its trigger see to, whoever writes."""

from datetime import UTC, datetime

import asyncpg
import pytest

from provisioning.model.claim import TokenEnd
from provisioning.store import tokens
from provisioning.store.database import Database
from tests.provisioning.store.registry import add_fleet, execute

NOW = datetime(2030, 1, 1, tzinfo=UTC)


async def test_a_tombstone_says_that_the_device_is_gone_whoever_deleted_it(database: Database) -> None:
    device = (await add_fleet(database)).device
    async with database.begin() as tx:
        await tokens.add(tx, "live", device.id, NOW)
        await tokens.add(tx, "ended", device.id, NOW)
        await tokens.revoke_all(tx, device.id, TokenEnd.REPLACED, NOW)
        await tokens.add(tx, "later", device.id, NOW)
    await execute(database, "DELETE FROM device WHERE id = $1", device.id)
    async with database.read() as tx:
        for token in ("live", "ended", "later"):
            assert await tokens.find(tx, token) == tokens.Known(None, None, TokenEnd.DELETED)
        assert await tokens.find(tx, "never") is None


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO token (hash, issued_at) VALUES (sha256('x'), now())",
        "INSERT INTO token (hash, device_id, issued_at) VALUES ('short', 1, now())",
        "UPDATE token SET revoked_at = now()",
        "UPDATE token SET reason = 'deleted'",
        "UPDATE token SET reason = 'whim', revoked_at = now()",
        "UPDATE token SET device_id = NULL, reason = 'released', revoked_at = now()",
    ],
)
async def test_what_cannot_be_written(database: Database, statement: str) -> None:
    device = (await add_fleet(database)).device
    async with database.begin() as tx:
        await tokens.add(tx, "live", device.id, NOW)
    with pytest.raises(asyncpg.CheckViolationError):
        await execute(database, statement)
