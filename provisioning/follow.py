"""Following the registry: what is changed anywhere bites here, in the cache and in live sessions, within a second."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from broker.embedded import EmbeddedBroker
from broker.sessions import Sessions
from provisioning import log
from provisioning.core.presence import Presence
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal
from provisioning.opening import StartError
from provisioning.store import holdings as holdings_store
from provisioning.store import logins
from provisioning.store.changes import Change, Listener, What, listening
from provisioning.store.credentials import Credentials
from provisioning.store.database import Database
from provisioning.store.holdings import Holdings
from provisioning.store.presence import Lost

CHECK_AT_ONCE: Final = 1_000
CHECK_AGAIN: Final = 0.5
"""Seconds to the next try of a check that the database did not answer."""
ENDINGS: Final = {
    What.DISABLED: Reason.DISABLED,
    What.RESET: Reason.NOT_PROVEN,
    What.DELETED: Reason.UNKNOWN,
    What.KICKED: Reason.KICKED,
}
"""Changes that end a live session, and what the session is told."""


class Follower:
    """What a process does when the registry has changed.

    `on_authority` hears when authorities may have come or gone, `on_delivery` when something was put into the outbox.
    """

    def __init__(
        self,
        database: Database,
        credentials: Credentials,
        holdings: Holdings,
        sessions: Sessions,
        *,
        broker: EmbeddedBroker | None = None,
        presence: Presence | None = None,
        on_authority: Callable[[], None] = lambda: None,
        on_delivery: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._credentials = credentials
        self._holdings = holdings
        self._sessions = sessions
        self._broker = broker
        self._presence = presence
        self._on_authority = on_authority
        self._on_delivery = on_delivery
        self._loop = asyncio.get_running_loop()
        self._checks: set[asyncio.Task[None]] = set()

    def changed(self, change: Change) -> None:
        match change.what:
            case What.ADDED:
                self._credentials.forget_missing()
            case What.PRODUCT:
                self._credentials.forget_product(change.protocol, change.product)
            case What.AUTHORITY:
                self._holdings.forget_all()
                self._on_authority()
                self._check()
            case What.CERTIFICATE:
                log.get().info(
                    "registry.changed", change="certificate", authority=change.authority, serial=change.serial,
                    status=change.status,
                )  # fmt: skip
                key = (int(change.authority), change.serial)
                self._holdings.forget(key)
                if change.status != "valid":
                    self._loop.call_soon(self._sessions.kick_certificate, key, Reason.CERTIFICATE_REQUIRED)
            case What.TAKEN_OVER:
                self._taken_over(change)
            case What.DELIVERY:
                self._on_delivery()
            case What.TRUNCATED:
                self.back()
            case _:
                identity = Identity(change.protocol, change.product, change.device)
                log.get().info(
                    "registry.changed", change=str(change.what), protocol=change.protocol, product=change.product,
                    device=change.device,
                )  # fmt: skip
                self._credentials.forget(identity)
                if change.what in ENDINGS:
                    # Not before a login that was decided a moment ago, by what was true then, has its session.
                    self._loop.call_soon(self._end, identity, change.what)

    def _taken_over(self, change: Change) -> None:
        if self._presence is not None and change.node == str(self._presence.node):
            identity = Identity(change.protocol, change.product, change.device)
            self._presence.taken(Lost(change.id, change.login, identity))

    def _end(self, identity: Identity, what: What) -> None:
        self._sessions.kick(identity, ENDINGS[what])
        if self._broker is not None and what in {What.RESET, What.DELETED}:
            self._broker.forget_device(identity)

    def back(self) -> None:
        """Changes are reported from now on; what was missed is looked up."""
        self._credentials.serve()
        self._holdings.serve()
        self._on_authority()
        self._on_delivery()
        self._check()
        if self._presence is not None:
            self._presence.hold()

    def lost(self) -> None:
        """Changes are not reported until further notice."""
        self._credentials.suspend()
        self._holdings.suspend()

    def _check(self) -> None:
        task = self._loop.create_task(_recheck(self._database, self._sessions))
        self._checks.add(task)
        task.add_done_callback(self._checks.discard)

    def close(self) -> None:
        for task in self._checks:
            task.cancel()


@asynccontextmanager
async def following(database: Database, follower: Follower) -> AsyncIterator[None]:
    """As long as the block runs, the caches forget what has changed, and sessions end that may not go on.

    Raises:
        StartError: the database does not report changes.
    """
    listener = Listener(database.url, on_change=follower.changed, on_back=follower.back, on_lost=follower.lost)
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(listening(listener))
        except TimeoutError as error:
            raise StartError("database: LISTEN does not work; a pooler in transaction mode cannot be used") from error
        stack.callback(follower.close)
        yield


async def _recheck(database: Database, sessions: Sessions) -> None:
    """End the sessions whose devices or certificates have lost their standing while nobody told us."""
    live = list(sessions)
    while live:
        part = live[:CHECK_AT_ONCE]
        try:
            async with database.read() as tx:
                found = await logins.standing(tx, [holder.device_id for _, holder in part])
                keys = [holder.certificate for _, holder in part if holder.certificate is not None]
                bad = await holdings_store.bad(tx, keys)
        except Refusal:
            await asyncio.sleep(CHECK_AGAIN)
            continue
        del live[:CHECK_AT_ONCE]
        for identity, holder in part:
            epoch, disabled = found.get(holder.device_id, (None, False))
            if sessions.find(identity) is holder and (epoch != holder.epoch or disabled):
                sessions.kick(identity, Reason.NOT_PROVEN if epoch != holder.epoch else Reason.DISABLED)
            elif holder.certificate in bad:
                sessions.kick_certificate(holder.certificate, Reason.CERTIFICATE_REQUIRED)
