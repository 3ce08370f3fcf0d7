"""The outbox: sends what waits in it, in order, again and again, until it has arrived or is given up.

Any number of processes share one outbox. Each takes what is due by leases, so that what a killed process was at is
taken up when its leases end: each delivery arrives at least once, and those of one lane in their order.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from provisioning import log, tasks
from provisioning.core.webhooks import host_of, next_attempt
from provisioning.metrics import Metrics
from provisioning.model.refusal import Refusal
from provisioning.sending import Policy, Sender, Sent, Why, sender
from provisioning.store import webhooks
from provisioning.store.batch import Batcher
from provisioning.store.database import Database
from provisioning.store.webhooks import Delivery, Limits, Result

MARGIN: Final = 20.0
"""Seconds that a lease lasts beyond an attempt's timeout: to write what came of it."""
LOOK_EVERY: Final = 5.0
"""Seconds to the next look where nobody tells of anything, and the next delivery is due later."""
LOOK_AGAIN: Final = 0.05
"""The same, where another process was a moment faster."""
COUNT_EVERY: Final = 15.0
WRITE_AGAIN: Final = 0.02
LONGEST_PAUSE: Final = 1.0
GRACE: Final = 2.0
"""Seconds that attempts under way have to end when the service stops."""
USUAL: Final = Limits()


class Outbox:
    """The work of one process. See `delivering`.

    `clock` says what is due; `wake` is set when there may be something new.
    """

    def __init__(
        self,
        database: Database,
        policy: Policy,
        *,
        clock: Callable[[], datetime],
        metrics: Metrics,
        wake: asyncio.Event | None = None,
        limits: Limits = USUAL,
    ) -> None:
        self.policy = policy
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._wake = wake or asyncio.Event()
        self._limits = limits
        self._lasts = policy.timeout + MARGIN
        self._under_way: dict[int, Delivery] = {}
        self._attempts: set[asyncio.Task[None]] = set()
        self._results = Batcher(self._finish, concurrency=1)
        self._counted = -COUNT_EVERY
        self.depth = 0
        """Deliveries that wait, of all processes; a few seconds old, as is `dead`."""
        self.dead = 0

    def kick(self) -> None:
        """There may be something new, or the clock was moved."""
        self._wake.set()

    async def run(self, post: Sender) -> None:
        """Send what is due, until cancelled; attempts go on: see `close`."""
        while True:
            self._wake.clear()
            try:
                wait = await self._look(post)
            except Refusal as refusal:
                log.get().warning("webhook.claim", outcome="failed", reason=str(refusal.reason))
                wait = LOOK_EVERY
            except Exception as error:  # noqa: BLE001 - a mistake of ours must not end all deliveries
                log.get().error("webhook.claim", outcome="failed", reason="internal", exc_info=error)
                wait = LOOK_EVERY
            with suppress(TimeoutError):  # not `asyncio.wait_for`: before 3.12 it may swallow a cancellation
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    async def _look(self, post: Sender) -> float:
        """Begin what is due, as far as there is room. Returns the seconds to the next look.

        Raises:
            Refusal: UNAVAILABLE.
        """
        await self._count()
        if len(self._under_way) >= self._limits.total:
            return LOOK_EVERY
        now = self._clock()
        async with self._database.begin() as tx:
            claimed, raced = await webhooks.claim(
                tx, now=now, until=now + timedelta(seconds=self._lasts), lease=uuid4(),
                busy=self._under_way.values(), limits=self._limits,
            )  # fmt: skip
            due = await webhooks.next_due(tx, now)
        for delivery in claimed:
            self._under_way[delivery.lane] = delivery
            task = asyncio.create_task(self._attempt(post, delivery), name="delivery")
            self._attempts.add(task)
            task.add_done_callback(self._attempts.discard)
        if raced:
            return LOOK_AGAIN
        return LOOK_EVERY if due is None else min((due - now).total_seconds(), LOOK_EVERY)

    async def _count(self) -> None:
        """Raises: Refusal UNAVAILABLE."""
        now = time.monotonic()
        if now - self._counted >= COUNT_EVERY:
            async with self._database.read() as tx:
                self.depth, self.dead = await webhooks.depth(tx)
            self._counted = now

    async def _attempt(self, post: Sender, delivery: Delivery) -> None:
        """Where it is broken off, `close` finds it under way."""
        began = time.monotonic()
        sent = await post.send(delivery)
        result = self._result(delivery, sent)
        try:
            self._tell(delivery, sent, result, time.monotonic() - began)
            await self._write(result, until=began + self._lasts)
        except Exception as error:  # noqa: BLE001 - as in `run`
            log.get().error(
                "webhook.write", outcome="failed", reason="internal", delivery=delivery.id, exc_info=error
            )  # fmt: skip
        del self._under_way[delivery.lane]
        self._wake.set()

    def _result(self, delivery: Delivery, sent: Sent) -> Result:
        if sent.why is None:
            return Result(lane=delivery.lane, lease=delivery.lease, id=delivery.id)
        now = self._clock()
        due = next_attempt(delivery.attempts + 1, now)
        return Result(
            lane=delivery.lane, lease=delivery.lease, id=delivery.id, due_at=due, dead_at=None if due else now,
            error=sent.error,
        )  # fmt: skip

    def _tell(self, delivery: Delivery, sent: Sent, result: Result, seconds: float) -> None:
        """The canonical line of an attempt."""
        outcome = "accepted" if sent.why is None else "failed"
        self._metrics.delivery(outcome, str(sent.why or ""), seconds)
        fields: dict[str, Any] = {} if sent.status is None else {"status": sent.status}
        if sent.why is not None:
            fields |= {"reason": str(sent.why), "error": sent.error, "due_at": result.due_at}
        if result.dead_at is not None:
            fields["dead"] = True
        say = log.get().error if sent.why is Why.INTERNAL else log.get().info
        say(
            "webhook.delivery", outcome=outcome, **fields, ms=round(seconds * 1_000, 1), attempt=delivery.attempts + 1,
            delivery=delivery.id, host=_host(delivery.url), type=delivery.kind, subject=delivery.subject,
            account=delivery.account,
        )  # fmt: skip

    async def _write(self, result: Result, *, until: float) -> None:
        """Write what an attempt came to; when that fails until the lease ends, the delivery is sent once more."""
        pause = WRITE_AGAIN
        while True:
            try:
                if await self._results.submit(result):
                    return
                why = "locked"
            except Refusal as refusal:
                why = str(refusal.reason)
            if time.monotonic() + pause > until:
                log.get().warning("webhook.write", outcome="failed", reason=why, delivery=result.id)
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _finish(self, results: Sequence[Result]) -> Sequence[bool]:
        """Which are written; the others' lanes are held by somebody else for a moment."""
        async with self._database.begin() as tx:
            held = await webhooks.finish(tx, results)
        return [each.lane not in held for each in results]

    async def close(self) -> None:
        """Give the attempts under way a moment to end, and the others' leases back."""
        under_way = set(self._attempts)
        if under_way:
            await asyncio.wait(under_way, timeout=GRACE)
        for task in under_way:
            await tasks.end(task)
        await self._results.close(GRACE)
        if self._under_way:
            with suppress(Refusal):  # then they end by themselves
                async with self._database.begin() as tx:
                    await webhooks.release(tx, self._under_way.values(), self._clock())


def _host(url: str) -> str:
    """For the log: what is behind it in a URL may be a secret."""
    try:
        return host_of(url)
    except ValueError:
        return ""


@asynccontextmanager
async def delivering(outbox: Outbox) -> AsyncIterator[None]:
    """Send what is due as long as the block runs.

    Raises:
        OSError, ssl.SSLError: the policy's certificates cannot be read.
    """
    async with sender(outbox.policy) as post:
        task = asyncio.create_task(outbox.run(post), name="outbox")
        try:
            yield
        finally:
            await tasks.end(task)
            await outbox.close()
