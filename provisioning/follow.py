"""Following the registry: what is changed anywhere bites here, in the cache and in live sessions, within a second."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from broker.embedded import EmbeddedBroker
from broker.sessions import Sessions
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal
from provisioning.opening import StartError
from provisioning.store import logins
from provisioning.store.changes import Change, Listener, What, listening
from provisioning.store.credentials import Credentials
from provisioning.store.database import Database

CHECK_AT_ONCE: Final = 1_000
CHECK_AGAIN: Final = 0.5
"""Seconds to the next try of a check that the database did not answer."""
ENDINGS: Final = {
    What.DISABLED: Reason.DISABLED,
    What.RESET: Reason.NOT_PROVEN,
    What.DELETED: Reason.UNKNOWN,
    What.KICKED: Reason.BLOCKED,
}
"""Changes that end a live session, and what the session is told."""


@asynccontextmanager
async def following(
    database: Database, credentials: Credentials, sessions: Sessions, broker: EmbeddedBroker | None
) -> AsyncIterator[None]:
    """As long as the block runs, the cache forgets what has changed, and sessions end that may not go on.

    Raises:
        StartError: the database does not report changes.
    """
    loop = asyncio.get_running_loop()
    checks: set[asyncio.Task[None]] = set()

    def on_change(change: Change) -> None:
        match change.what:
            case What.ADDED:
                credentials.forget_missing()
            case What.PRODUCT:
                credentials.forget_product(change.protocol, change.product)
            case _:
                identity = Identity(change.protocol, change.product, change.device)
                credentials.forget(identity)
                if change.what in ENDINGS:
                    # Not before a login that was decided a moment ago, by what was true then, has its session.
                    loop.call_soon(end, identity, change.what)

    def end(identity: Identity, what: What) -> None:
        sessions.kick(identity, ENDINGS[what])
        if broker is not None and what in {What.RESET, What.DELETED}:
            broker.forget_device(identity)

    def on_back() -> None:
        credentials.serve()
        task = loop.create_task(_recheck(database, sessions))
        checks.add(task)
        task.add_done_callback(checks.discard)

    listener = Listener(database.url, on_change=on_change, on_back=on_back, on_lost=credentials.suspend)
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(listening(listener))
        except TimeoutError as error:
            raise StartError("database: LISTEN does not work; a pooler in transaction mode cannot be used") from error
        try:
            yield
        finally:
            for task in checks:
                task.cancel()


async def _recheck(database: Database, sessions: Sessions) -> None:
    """End the sessions whose devices were disabled, reset or deleted while nobody told us."""
    live = list(sessions)
    while live:
        part = live[:CHECK_AT_ONCE]
        try:
            async with database.read() as tx:
                found = await logins.standing(tx, [holder.device_id for _, holder in part])
        except Refusal:
            await asyncio.sleep(CHECK_AGAIN)
            continue
        del live[:CHECK_AT_ONCE]
        for identity, holder in part:
            epoch, disabled = found.get(holder.device_id, (None, False))
            if sessions.find(identity) is holder and (epoch != holder.epoch or disabled):
                sessions.kick(identity, Reason.NOT_PROVEN if epoch != holder.epoch else Reason.DISABLED)
