"""What the service does by itself now and then: old events go, certificates and accounts are looked after."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

from provisioning import log
from provisioning.core import claims, inventory, roots
from provisioning.model.refusal import Refusal
from provisioning.protocols.ublox import expiry, machine
from provisioning.store import events, lists, notices, usage, webhooks
from provisioning.store.database import Database, Tx
from provisioning.store.holdings import Holdings

PRUNE_EVERY: Final = 3_600.0
CARE_EVERY: Final = 3_600.0
CARE_AT_ONCE: Final = 500
SEEN_EVERY: Final = 5.0
ACCOUNTS_EVERY: Final = 30.0


class Work(Protocol):
    """Does up to `limit` pieces of what is to be done; returns how many, or which, it has done."""

    __name__: str

    async def __call__(self, tx: Tx, *, now: datetime, limit: int) -> int | Sequence[object]:
        """Raises: Refusal UNAVAILABLE from the transaction."""


FOR_ACCOUNTS: Final[tuple[Work, ...]] = (
    lists.compact,
    machine.unreachable,
    usage.compact,
    usage.prune,
    roots.refresh_crls,
    expiry.warn_of_certificates,
    expiry.warn_of_root_cas,
)
"""What accounts need every `ACCOUNTS_EVERY` seconds."""


def for_accounts(keep_days: int) -> tuple[Work, ...]:
    """`FOR_ACCOUNTS`; what devices have told goes after `keep_days`, and so do dead letters."""

    async def prune_notices(tx: Tx, *, now: datetime, limit: int) -> int:
        return await notices.prune(tx, now=now, limit=limit, keep_days=keep_days)

    async def prune_dead_letters(tx: Tx, *, now: datetime, limit: int) -> int:
        return await webhooks.prune(tx, now=now, limit=limit, keep_days=keep_days)

    return (*FOR_ACCOUNTS, prune_notices, prune_dead_letters)


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


async def care_for_accounts(
    database: Database, works: Sequence[Work], clock: Callable[[], datetime], every: float = ACCOUNTS_EVERY
) -> None:
    """Do each of the works until nothing is left of it, again and again. One that fails does not keep up the others."""
    while True:
        for work in works:
            try:
                while True:
                    async with database.begin() as tx:
                        done = await work(tx, now=clock(), limit=CARE_AT_ONCE)
                    if (done if isinstance(done, int) else len(done)) < CARE_AT_ONCE:
                        break
            except Refusal as refusal:
                log.get().warning(
                    "accounts.care", outcome="failed", work=work.__name__, reason=str(refusal.reason)
                )  # fmt: skip
            except Exception as error:  # noqa: BLE001 - one account's damage must not end the care for all
                log.get().error(
                    "accounts.care", outcome="failed", work=work.__name__, reason="internal", exc_info=error
                )  # fmt: skip
        await asyncio.sleep(every)


async def _tend(database: Database, *works: Callable[..., Awaitable[Sequence[object]]]) -> None:
    """Raises: Refusal UNAVAILABLE."""
    now = datetime.now(UTC)
    for work in works:
        count = CARE_AT_ONCE
        while count == CARE_AT_ONCE:
            async with database.begin() as tx:
                count = len(await work(tx, now=now, limit=CARE_AT_ONCE))
