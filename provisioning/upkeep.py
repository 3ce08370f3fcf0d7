"""What the service does by itself now and then: old events go, certificates are looked after."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from provisioning import log
from provisioning.core import claims, inventory
from provisioning.model.refusal import Refusal
from provisioning.store import events
from provisioning.store.database import Database
from provisioning.store.holdings import Holdings

PRUNE_EVERY: Final = 3_600.0
CARE_EVERY: Final = 3_600.0
CARE_AT_ONCE: Final = 500
SEEN_EVERY: Final = 5.0


async def prune(database: Database, keep_days: int) -> None:
    """Delete old events, a batch at a time."""
    while True:
        try:
            async with database.begin() as tx:
                count = await events.prune(tx, keep_days)
        except Refusal as refusal:
            log.get().warning("events.prune", outcome="failed", reason=str(refusal.reason))
            count = 0
        await asyncio.sleep(1.0 if count else PRUNE_EVERY)


async def care_for_certificates(database: Database, holdings: Holdings) -> None:
    """Write what was seen, and revoke what that has replaced; now and then look at all, and warn of what expires."""
    tended = -CARE_EVERY
    loop = asyncio.get_running_loop()
    while True:
        try:
            if await holdings.flush():
                await _tend(database, inventory.revoke_replaced)
            if loop.time() - tended >= CARE_EVERY:
                await _tend(database, inventory.warn_expiring, inventory.revoke_replaced, claims.revoke_outlived)
                tended = loop.time()
        except Refusal as refusal:
            log.get().warning("certificates.care", outcome="failed", reason=str(refusal.reason))
        await asyncio.sleep(SEEN_EVERY)


async def _tend(database: Database, *works: Callable[..., Awaitable[Sequence[object]]]) -> None:
    """Raises: Refusal UNAVAILABLE."""
    now = datetime.now(UTC)
    for work in works:
        count = CARE_AT_ONCE
        while count == CARE_AT_ONCE:
            async with database.begin() as tx:
                count = len(await work(tx, now=now, limit=CARE_AT_ONCE))
