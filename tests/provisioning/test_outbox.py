"""provisioning/outbox.py: what is written arrives, in order, once it can; what is not written does not."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import web

from provisioning import outbox as outbox_module
from provisioning.metrics import Metrics
from provisioning.model.account import Account
from provisioning.model.refusal import Reason, Refusal
from provisioning.opening import StartError
from provisioning.outbox import Outbox, delivering
from provisioning.sending import Policy
from provisioning.store import webhooks
from provisioning.store.database import Database
from provisioning.store.webhooks import Limits
from tests import receivers
from tests.certificates import run
from tests.conftest import Serve, Spawn, service_environment, until
from tests.receivers import Receiver, receiver
from tests.ublox import Clock, make_account

pytestmark = pytest.mark.server

TOKEN = "Bearer abc"
MINUTES = (1, 5, 30, 120, 720)


@dataclass
class World:
    """An account whose events of kind K go to a receiver; processes that deliver them."""

    database: Database
    account: Account
    there: Receiver
    stack: AsyncExitStack
    clock: Clock = field(default_factory=Clock)
    metrics: Metrics = field(default_factory=Metrics)
    processes: list[Outbox] = field(default_factory=list)

    async def webhook(self, path: str = "/hook", kind: str = "K") -> None:
        await run(
            self.database, webhooks.add, self.account.id, self.there.url(path), kind, token=TOKEN, now=self.clock()
        )  # fmt: skip

    async def put(self, subject: str, *names: str, kind: str = "K") -> None:
        for name in names:
            body = json.dumps({"subject": subject, "name": name})
            await run(
                self.database, webhooks.enqueue, self.account.id, kind=kind, subject=subject, body=body,
                now=self.clock(),
            )  # fmt: skip
            self.kick()

    def kick(self) -> None:
        for each in self.processes:
            each.kick()

    async def process(self, timeout: float = 5.0, **more: Any) -> Outbox:  # noqa: ASYNC109 - a setting
        """Delivers until the test ends."""
        made = Outbox(
            self.database, Policy(timeout=timeout, private=True, ca=self.there.ca), clock=self.clock,
            metrics=self.metrics, **more,
        )  # fmt: skip
        await self.stack.enter_async_context(delivering(made))
        self.processes.append(made)
        return made

    async def depth(self) -> tuple[int, int]:
        found: tuple[int, int] = await run(self.database, webhooks.depth)
        return found

    async def is_empty(self) -> bool:
        return await self.depth() == (0, 0)

    def arrived(self, subject: str) -> list[str]:
        return [each.event["name"] for each in self.there.posts if each.event["subject"] == subject]


@pytest.fixture
async def world(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(outbox_module, "GRACE", 0.05)
    async with receiver(tmp_path) as there, AsyncExitStack() as stack:
        made = World(database, await make_account(database), there, stack)
        await made.webhook()
        yield made


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


async def test_what_is_written_leaves_after_the_commit(world: World, lines: list[Any]) -> None:
    one = await world.process()
    await world.put("d1", "a", "b", "c")
    async with world.database.begin() as tx:
        await webhooks.enqueue(tx, world.account.id, kind="K", subject="d2", body='{"subject":"d2","name":"a"}',
                               now=world.clock())  # fmt: skip
        one.kick()
        await until(lambda: len(world.there.posts) == 3, "the others")
    one.kick()
    with pytest.raises(ZeroDivisionError):
        async with world.database.begin() as tx:
            await _fail_after_writing(tx, world)
    await until(world.is_empty, "everything to be delivered")
    assert world.arrived("d1") == ["a", "b", "c"]
    assert world.arrived("d2") == ["a"]
    assert world.there.bodies[-1] == '{"subject":"d2","name":"a"}', "as it was written"
    told = [line for line in lines if line["event"] == "webhook.delivery"]
    assert len(told) == 4
    assert {key: told[0][key] for key in told[0] if key not in {"ms", "delivery"}} == {
        "event": "webhook.delivery", "log_level": "info", "outcome": "accepted", "status": 200, "attempt": 1,
        "host": "127.0.0.1", "type": "K", "subject": "d1", "account": world.account.key,
    }  # fmt: skip
    assert b'gatehouse_deliveries_total{outcome="accepted",reason=""} 4.0' in world.metrics.expose()


async def _fail_after_writing(tx: Any, world: World) -> None:
    await webhooks.enqueue(tx, world.account.id, kind="K", subject="d3", body="{}", now=world.clock())
    raise ZeroDivisionError


async def test_retries_and_death_by_the_clock(world: World, lines: list[Any]) -> None:
    """1 min, 5 min, 30 min, 2 h, 12 h, dead; what is behind it waits, what is beside it does not."""
    world.there.behave = receivers.answer(500)
    one = await world.process()
    await world.put("d1", "a", "b")
    for minutes in MINUTES:
        await _waits(world, timedelta(minutes=minutes))
        world.clock.move(minutes=minutes)
        one.kick()
    await until(lambda: _dead(world), "the first to be given up")
    await _waits(world, timedelta(minutes=1))  # the second, which has failed for the first time
    world.there.behave = receivers.accept
    world.clock.move(minutes=1)
    one.kick()
    await until(lambda: _delivered(world), "the second to be delivered")
    assert world.arrived("d1") == ["a"] * 6 + ["b"] * 2
    (last,) = await run(world.database, webhooks.dead, "ublox", None, 9)
    assert (last.error, last.attempts) == ("answered 500", 6)
    assert last.dead_at == world.clock() - timedelta(minutes=1)
    told = [line for line in lines if line["event"] == "webhook.delivery" and line["outcome"] == "failed"]
    assert [(line["attempt"], line["reason"], line["status"], line.get("dead", False)) for line in told][:6] == [
        (n, "status", 500, n == 6) for n in range(1, 7)
    ]  # fmt: skip
    assert await run(world.database, webhooks.revive, "ublox", now=world.clock(), limit=9) == [last.id]
    one.kick()
    await until(world.is_empty, "the dead letter to be delivered after all")
    assert world.arrived("d1")[-1] == "a"


async def _waits(world: World, wait: timedelta) -> None:
    """Until the only lane is due after so long a wait."""

    async def check() -> bool:
        async with world.database.read() as tx:
            return bool(await tx.db.fetchval("SELECT due_at = $1 AND lease IS NULL FROM lane", world.clock() + wait))

    await until(check, f"the delivery to be due in {wait}")


async def _dead(world: World) -> bool:
    return (await world.depth())[1] == 1


async def _delivered(world: World) -> bool:
    return await world.depth() == (0, 1)


async def test_whatever_a_receiver_does_everything_arrives_in_order(world: World) -> None:
    """It fails, stalls, closes, redirects, talks nonsense and recovers, each time for other devices."""
    moods = (
        receivers.answer(500), receivers.stall, receivers.close, receivers.answer(302, Location="/x"), receivers.babble,
    )  # fmt: skip
    seen: dict[str, int] = {}

    async def moody(request: web.Request) -> web.StreamResponse:
        event = json.loads(await request.read())
        seen[event["subject"]] = n = seen.get(event["subject"], int(event["subject"][1:])) + 1
        return await (moods[n % len(moods)] if n % 2 else receivers.accept)(request)

    world.there.behave = moody
    one = await world.process(timeout=0.2)
    names = ["a", "b", "c"]
    subjects = [f"d{n}" for n in range(6)]
    for subject in subjects:
        await world.put(subject, *names)

    async def empty() -> bool:
        world.clock.move(minutes=1)
        one.kick()
        return await world.is_empty()

    await until(empty, "everything to be delivered")
    for subject in subjects:
        assert list(dict.fromkeys(world.arrived(subject))) == names, "in order"
        assert world.arrived(subject) == sorted(world.arrived(subject)), "never one before its turn"


async def test_one_that_stalls_holds_up_nobody_else(world: World, tmp_path: Path) -> None:
    await world.webhook("/slow", kind="S")

    async def behave(request: web.Request) -> web.StreamResponse:
        return await (receivers.stall if request.path == "/slow" else receivers.accept)(request)

    world.there.behave = behave
    await world.process(timeout=60, limits=Limits(total=6, per_account=5, per_receiver=4))
    for n in range(8):
        await world.put(f"d{n}", "slow", kind="S")
    await until(lambda: len(world.there.posts) == 4, "as many as may go to one receiver")
    for n in range(8):
        await world.put(f"d{n}", "quick")
    await until(lambda: sum(each.event["name"] == "quick" for each in world.there.posts) == 8, "the others")
    assert sum(each.event["name"] == "slow" for each in world.there.posts) == 4


async def test_a_token_that_was_changed_reaches_the_next_attempt(world: World) -> None:
    world.there.behave = receivers.answer(401)
    one = await world.process()
    await world.put("d1", "a")
    await _waits(world, timedelta(minutes=1))
    await run(world.database, webhooks.set_token, world.account.id, world.there.url(), "new")
    world.there.behave = receivers.accept
    world.clock.move(minutes=1)
    one.kick()
    await until(world.is_empty, "the delivery")
    assert [each.headers["Authorization"] for each in world.there.posts] == [TOKEN, "new"]


async def test_two_processes_share_one_outbox(world: World) -> None:
    for _ in range(2):
        await world.process()
    names = [f"{n:02}" for n in range(8)]
    subjects = [f"d{n}" for n in range(10)]

    async def write(subject: str) -> None:
        for name in names:
            await world.put(subject, name)

    await asyncio.gather(*map(write, subjects))
    await until(world.is_empty, "everything to be delivered")
    for subject in subjects:
        assert world.arrived(subject) == names, "each once, in order"


async def test_the_database_goes_away_and_comes_back(
    world: World, monkeypatch: pytest.MonkeyPatch, lines: list[Any]
) -> None:
    """What was sent is written when it is back; who looks for work tries again."""
    away = True
    begin = Database.begin

    @asynccontextmanager
    async def perhaps(self: Database) -> AsyncIterator[Any]:
        if away:
            raise Refusal(Reason.UNAVAILABLE)
        async with begin(self) as tx:
            yield tx

    monkeypatch.setattr(outbox_module, "LOOK_EVERY", 0.02)
    await world.put("d1", "a")
    with monkeypatch.context() as patched:
        patched.setattr(Database, "begin", perhaps)
        await world.process()
        await until(lambda: any(line["event"] == "webhook.claim" for line in lines), "a look in vain")
        away = False
        gate = asyncio.Event()

        async def behave(request: web.Request) -> web.StreamResponse:
            nonlocal away
            away = True
            gate.set()
            return await receivers.accept(request)

        world.there.behave = behave
        await gate.wait()
        await until(lambda: any(line["event"] == "webhook.delivery" for line in lines), "the attempt to be over")
        away = False
        await until(world.is_empty, "the result to be written")
    assert world.arrived("d1") == ["a"], "once"


async def test_a_mistake_of_ours_does_not_end_all_deliveries(
    world: World, monkeypatch: pytest.MonkeyPatch, lines: list[Any]
) -> None:
    monkeypatch.setattr(outbox_module, "LOOK_EVERY", 0.02)
    with monkeypatch.context() as patched:
        patched.setattr(webhooks, "next_due", lambda *_: 1 / 0)
        await world.process()
        await until(lambda: any(line.get("reason") == "internal" for line in lines), "the mistake")
    await world.put("d1", "a")
    await until(world.is_empty, "the delivery")


async def test_a_process_that_stops_gives_back_what_it_is_at(world: World) -> None:
    world.there.behave = receivers.stall
    made = Outbox(world.database, Policy(private=True, ca=world.there.ca), clock=world.clock, metrics=world.metrics)
    await world.put("d1", "a")
    async with delivering(made):
        await until(lambda: world.there.posts, "the attempt")
    world.there.behave = receivers.accept
    await world.process()
    await until(world.is_empty, "the next process to deliver it at once, by the same clock")
    assert world.arrived("d1") == ["a", "a"]


async def test_a_delivery_that_nobody_could_write_harms_no_other(world: World, lines: list[Any]) -> None:
    """As when somebody has been at the tables by hand."""
    await world.put("d1", "a")
    async with world.database.begin() as tx:
        await tx.db.execute("UPDATE webhook SET url = 'https://user:secret@host/'")
    await world.process()
    await _waits(world, timedelta(minutes=1))
    (line,) = [line for line in lines if line["event"] == "webhook.delivery"]
    assert (line["host"], line["reason"]) == ("", "token"), "a sealed token is bound to its URL"
    await world.webhook("/other", kind="L")
    await world.put("d1", "b", kind="L")
    await until(lambda: world.arrived("d1") == ["b"], "the other")


async def test_authorities_that_cannot_be_read_are_said_at_the_start(serve: Serve, tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"webhook_ca: cannot use .*none\.pem: No such file"):
        await serve(ublox={"webhook_ca": str(tmp_path / "none.pem")})


async def test_a_service_is_killed_and_another_takes_over(
    world: World, spawn: Spawn, serve: Serve, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that was committed arrives at least once, in order; what was under way is sent again."""
    environment = service_environment(
        database_url, GATEHOUSE_UBLOX__WEBHOOK_PRIVATE="true", GATEHOUSE_UBLOX__WEBHOOK_CA=str(world.there.ca)
    )
    killed = await spawn("serve", **environment)
    await killed.ready()
    count = 0

    async def stall_at_the_tenth(request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        return await (receivers.accept if count < 10 else receivers.stall)(request)

    world.there.behave = stall_at_the_tenth
    names, subjects = [f"{n}" for n in range(5)], [f"d{n}" for n in range(4)]
    for name in names:
        for subject in subjects:
            await world.put(subject, name)
    await until(lambda: count >= 13, "the receiver to stall, with four attempts under way")
    await killed.kill()
    assert (await world.depth())[0] >= 11
    world.there.behave = receivers.accept
    monkeypatch.setattr(outbox_module, "LOOK_EVERY", 60)  # what is new is told by LISTEN
    running = await serve(ublox={"webhook_private": True, "webhook_ca": str(world.there.ca)})
    world.clock.move(minutes=1)
    world.clock.set_on(running)
    running.outbox.kick()
    await until(world.is_empty, "everything to be delivered")
    for subject in subjects:
        assert [name for name, _ in groupby(world.arrived(subject))] == names, "in order"
    assert len(world.there.posts) == 20 + 4, "those under way twice, all others once"
    await world.put("d9", "news")
    await until(lambda: world.arrived("d9"), "the news to wake the service")
    events = killed.events("webhook.delivery")
    assert {event["outcome"] for event in events} == {"accepted"}
    assert not [line for line in killed.lines if TOKEN in line]
