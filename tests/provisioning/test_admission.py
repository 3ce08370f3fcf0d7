import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
import structlog

from provisioning.admission import Admissions
from provisioning.core.activate import LoginWrites
from provisioning.core.blocking import Blocker
from provisioning.core.login import LoginClaim
from provisioning.metrics import Metrics
from provisioning.model.admission import Admission, Rejection, SessionLimits, Verdict
from provisioning.model.credential import Credential
from provisioning.model.identity import Identity
from provisioning.model.lifecycle import State
from provisioning.model.mqtt import Connect, Peer
from provisioning.model.refusal import Reason
from provisioning.model.registry import Device, Product
from provisioning.protocols.enos.mqtt import Enos
from provisioning.sections import Enos as EnosSettings
from provisioning.store import devices, events, products
from provisioning.store.credentials import Credentials
from provisioning.store.database import Database
from provisioning.store.holdings import Holdings
from tests.devices import connect, login
from tests.provisioning.store.registry import execute

HERE = Peer("192.0.2.1", 4711)
SECRETS = ("ds1", "ps1", "ps-off", "ps-create")


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """The structured log; no line may hold a secret or a signature."""
    before = structlog.get_config()
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as captured:
        yield captured
    structlog.configure(**before)
    text = json.dumps(captured, default=str)
    assert not [secret for secret in SECRETS if f'"{secret}"' in text]


class House:
    def __init__(self, database: Database, clock: Clock, **limits: Any) -> None:
        self.database = database
        self.credentials = Credentials(database, size=100, negative_ttl=2.0, clock=clock)
        self.writes = LoginWrites(database, limit=5)
        self.protocol = Enos(EnosSettings(**limits))
        self.metrics = Metrics()
        blocker = Blocker(refusals=4, window=120, duration=300, clock=clock)
        holdings = Holdings(database, size=100)
        self.admissions = Admissions(
            (self.protocol,), self.credentials, holdings, self.writes, blocker=blocker, metrics=self.metrics,
            clock=clock,
        )  # fmt: skip
        self.credentials.serve()

    def decide(self, wanted: Connect, peer: Peer = HERE) -> Verdict | asyncio.Task[Verdict]:
        return self.admissions.decide(wanted, peer)

    async def verdict(self, wanted: Connect, peer: Peer = HERE) -> Verdict:
        decided = self.decide(wanted, peer)
        return await decided if isinstance(decided, asyncio.Task) else decided

    async def code(self, wanted: Connect, peer: Peer = HERE) -> int:
        verdict = await self.verdict(wanted, peer)
        return verdict.code if isinstance(verdict, Rejection) else 0


@pytest.fixture
async def house(database: Database, clock: Clock, lines: list[Any]) -> AsyncIterator[House]:
    async with database.begin() as tx:
        for key, secret, more in (
            ("pk1", "ps1", {"dynamic_activation": True}),
            ("off", "ps-off", {}),
            ("create", "ps-create", {"dynamic_activation": True, "auto_create": True}),
        ):
            product = await products.add(tx, Product(protocol="enos", key=key, secret=secret, **more))  # type: ignore[arg-type]
            device = Device(protocol="enos", product=key, key="dk1", secret="ds1", state=State.ALLOCATED, asset="a")
            await devices.add_many(tx, [(device, product.id, None)])
    house = House(database, clock)
    yield house
    await house.admissions.close()
    await house.credentials.close()
    await house.writes.close()


async def kinds(database: Database) -> list[str]:
    async with database.read() as tx:
        return [event.kind for event in await events.page(tx)]


STATIC = connect(login())
DYNAMIC = connect(login(secret="ps1", mode="3"))


async def test_a_first_login_is_a_task_and_durable_before_its_verdict(house: House, lines: list[Any]) -> None:
    decided = house.decide(STATIC)
    assert isinstance(decided, asyncio.Task)
    verdict = await decided
    assert isinstance(verdict, Admission)
    assert (str(verdict.identity), verdict.push) == ("enos/pk1/dk1", None)
    assert await kinds(house.database) == ["device.activated"]
    (line,) = lines
    assert line.pop("ms") > 0
    assert line == {
        "event": "mqtt.login", "log_level": "info", "protocol": "enos", "product": "pk1", "device": "dk1",
        "peer": "192.0.2.1:4711", "means": "device", "outcome": "accepted",
    }  # fmt: skip


async def test_a_login_from_the_cache_is_answered_without_a_task(house: House) -> None:
    await house.verdict(STATIC)
    before = len(asyncio.all_tasks())
    assert isinstance(house.decide(STATIC), Admission)
    assert isinstance(house.decide(connect(login(secret="wrong"))), Rejection)
    assert len(asyncio.all_tasks()) == before
    assert await kinds(house.database) == ["device.activated"]


async def test_a_dynamic_activation_carries_the_secret_of_its_device(house: House) -> None:
    verdict = await house.verdict(DYNAMIC)
    assert isinstance(verdict, Admission)
    assert verdict.push is not None
    assert json.loads(verdict.push.message.payload)["params"]["deviceSecret"] == "ds1"
    assert await kinds(house.database) == ["device.secret_issued"]


async def test_a_device_is_created_where_its_product_says_so(house: House) -> None:
    wanted = connect(login("new", "ps-create", mode="3", product="create"))
    verdict = await house.verdict(wanted)
    assert isinstance(verdict, Admission)
    assert verdict.push is not None
    secret = json.loads(verdict.push.message.payload)["params"]["deviceSecret"]
    assert await kinds(house.database) == ["device.registered", "device.secret_issued"]
    assert await house.code(connect(login("new", secret, product="create"))) == 0


async def test_racing_creations_make_one_device(house: House) -> None:
    wanted = connect(login("new", "ps-create", mode="3", product="create"))
    verdicts = await asyncio.gather(*(house.verdict(wanted) for _ in range(5)))
    pushes = [v.push.message.payload for v in verdicts if isinstance(v, Admission) and v.push]
    assert (len(pushes), len(set(pushes))) == (5, 1)
    assert sorted(await kinds(house.database)) == ["device.registered"] + ["device.secret_issued"] * 5


@pytest.mark.parametrize(
    ("wanted", "change", "code", "reason"),
    [
        (connect(login(secret="wrong")), "", 4, Reason.NOT_PROVEN),
        (connect(login("nobody")), "", 4, Reason.NOT_PROVEN),
        (connect(login(product="nothing")), "", 4, Reason.NOT_PROVEN),
        (connect(login("nobody", "ps1", mode="3")), "", 4, Reason.NOT_PROVEN),
        (connect(login() | {"username": "dk/1&pk1"}), "", 4, Reason.NOT_PROVEN),
        (connect(login() | {"password": ""}), "", 4, Reason.NOT_PROVEN),
        (STATIC, "UPDATE device SET disabled = true", 5, Reason.DISABLED),
        (DYNAMIC, "UPDATE device SET disabled = true", 5, Reason.DISABLED),
        (connect(login(secret="ps-off", mode="3", product="off")), "", 5, Reason.ACTIVATION_OFF),
        (DYNAMIC, "UPDATE device SET state = 'activated', activated_at = now()", 5, Reason.ACTIVATION_SPENT),
        (DYNAMIC, "UPDATE device SET activations = 5", 5, Reason.ACTIVATION_SPENT),
        (connect(login(mode="4")), "", 5, Reason.UNSUPPORTED),
        (connect(login(mode="9")), "", 2, Reason.MALFORMED),
        (connect(login() | {"identifier": "dk1|securemode=2|"}), "", 2, Reason.MALFORMED),
        (connect(login(), level=3), "", 1, Reason.UNSUPPORTED_VERSION),
        (connect({"identifier": "x", "username": "x", "password": "x"}), "", 4, Reason.NOT_PROVEN),
        (connect({"identifier": "x", "username": "x", "password": "x"}, level=3), "", 1, Reason.UNSUPPORTED_VERSION),
        (STATIC, "UPDATE device SET secret = secret || '\\x00'::bytea", 3, Reason.INTERNAL),
    ],
)  # fmt: skip
async def test_every_refusal_has_its_code_and_one_line(  # noqa: PLR0917 - the columns of a table
    house: House, lines: list[Any], wanted: Connect, change: str, code: int, reason: Reason
) -> None:
    if change:
        await execute(house.database, change)
    verdict = await house.verdict(wanted)
    assert isinstance(verdict, Rejection)
    assert (verdict.code, verdict.reason) == (code, reason)
    (line,) = lines
    assert line["event"] == "mqtt.login"
    assert (line["reason"], line["connack"], line["peer"]) == (reason, code, "192.0.2.1:4711")
    assert line["outcome"] == ("failed" if code == 3 else "refused")
    assert line["ms"] >= 0
    assert not [event for event in await kinds(house.database) if event != "device.activated"]


async def test_who_is_unknown_is_told_what_who_is_wrong_is_told(house: House, lines: list[Any]) -> None:
    wrong = await house.verdict(connect(login(secret="wrong")))
    unknown = await house.verdict(connect(login("nobody")))
    assert wrong == unknown
    assert [line["reason"] for line in lines] == ["not_proven"] * 2


async def test_without_the_database_a_device_may_come_again(house: House, lines: list[Any]) -> None:
    await house.database.pool.close()
    assert await house.code(STATIC) == 3
    assert (lines[0]["outcome"], lines[0]["reason"], lines[0]["log_level"]) == ("failed", "unavailable", "warning")


# --- the block ---


async def test_four_refusals_block_the_device_where_it_was_refused(
    house: House, clock: Clock, lines: list[Any]
) -> None:
    wrong = connect(login(secret="wrong"))
    for _ in range(4):
        assert await house.code(wrong) == 4
    assert await house.code(wrong) == 5
    assert await house.code(STATIC) == 5
    assert await house.code(STATIC, Peer(HERE.address, 9)) == 5, "another port is the same address"
    assert lines[-1]["reason"] == "blocked"
    assert await house.code(STATIC, Peer("192.0.2.2", 4711)) == 0
    assert await house.code(connect(login(product="off"))) == 0, "another device at the same address"
    clock.now += 299
    assert await house.code(STATIC) == 5
    clock.now += 1
    assert await house.code(STATIC) == 0


async def test_refusals_that_are_far_apart_do_not_block(house: House, clock: Clock) -> None:
    wrong = connect(login(secret="wrong"))
    for _ in range(6):
        assert await house.code(wrong) == 4
        clock.now += 60
    assert await house.code(STATIC) == 0


async def test_what_is_malformed_or_our_own_fault_does_not_count(house: House) -> None:
    for _ in range(5):
        assert await house.code(connect(login(mode="9"))) == 2
    await execute(house.database, "UPDATE device SET secret = secret || '\\x00'::bytea WHERE key = 'dk1'")
    for _ in range(5):
        assert await house.code(STATIC) == 3


# --- what happens meanwhile ---


async def test_a_disable_while_the_login_is_written_is_not_missed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate = house.writes.activate

    async def disabled_meanwhile(credential: Any) -> None:
        await activate(credential)
        await execute(house.database, "UPDATE device SET disabled = true WHERE key = 'dk1'")
        house.credentials.forget(credential.identity)

    monkeypatch.setattr(house.writes, "activate", disabled_meanwhile)
    verdict = await house.verdict(STATIC)
    assert isinstance(verdict, Rejection)
    assert verdict.reason is Reason.DISABLED


async def test_a_small_cache_under_load_costs_no_activations(database: Database, house: House, clock: Clock) -> None:
    """What is pushed out of the cache while a login is written has not changed."""
    house.credentials._size = 1
    async with database.begin() as tx:
        product = await products.find(tx, "enos", "pk1")
        assert product is not None
        new = [
            Device(protocol="enos", product="pk1", key=f"m{i}", secret="s", state=State.ALLOCATED) for i in range(20)
        ]
        await devices.add_many(tx, [(device, product.id, None) for device in new])
    wanted = [connect(login(device.key, "ps1", mode="3")) for device in new]
    assert set(await asyncio.gather(*map(house.code, wanted))) == {0}
    async with database.read() as tx:
        assert await tx.db.fetchval("SELECT max(activations) FROM device WHERE key LIKE 'm%'") == 1


async def test_a_client_that_goes_leaves_nothing_behind(house: House) -> None:
    tasks = [house.decide(STATIC) for _ in range(3)]
    for task in tasks:
        assert isinstance(task, asyncio.Task)
        task.cancel()
    await asyncio.gather(*(t for t in tasks if isinstance(t, asyncio.Task)), return_exceptions=True)
    assert house.credentials._watches == {}
    assert await house.code(STATIC) == 0


@pytest.mark.parametrize("where", ["read_connect", "proof", "admit", "reject", "look_up"])
async def test_a_mistake_of_ours_is_one_line_and_code_3(
    house: House, lines: list[Any], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def broken(*_arguments: object, **_more: object) -> Any:
        raise ZeroDivisionError("by accident")

    wanted = STATIC
    if where == "proof":
        await house.verdict(STATIC)
        monkeypatch.setattr("provisioning.protocols.enos.mqtt_wire.MqttClaim.proven_by", broken)
    elif where == "look_up":
        monkeypatch.setattr(house.credentials, "look_up", broken)
    else:
        monkeypatch.setattr(house.protocol, where, broken)
        wanted = connect(login(secret="wrong")) if where == "reject" else STATIC
    lines.clear()
    assert await house.code(wanted) == 3
    (line,) = lines
    assert (line["event"], line["log_level"], line["outcome"], line["reason"]) == (
        "mqtt.login", "error", "failed", "internal",
    )  # fmt: skip
    assert line["exc_info"]


async def test_a_strict_activation_ends_with_its_acknowledgement(
    database: Database, house: House, clock: Clock
) -> None:
    strict = House(database, clock, activation_strict=True)
    verdict = await strict.verdict(DYNAMIC)
    assert isinstance(verdict, Admission)
    assert verdict.once
    assert await strict.code(DYNAMIC) == 0
    strict.admissions.acknowledged(verdict)
    await strict.admissions.close()
    assert await strict.code(DYNAMIC) == 5


async def test_what_cannot_be_written_after_an_acknowledgement_is_told(
    database: Database, house: House, clock: Clock, lines: list[Any]
) -> None:
    strict = House(database, clock, activation_strict=True)
    verdict = await strict.verdict(DYNAMIC)
    assert isinstance(verdict, Admission)
    await database.pool.close()
    strict.admissions.acknowledged(verdict)
    await strict.admissions.close()
    assert (lines[-1]["event"], lines[-1]["outcome"]) == ("mqtt.activate", "failed")


# --- the interval of a protocol ---


class Patient(Enos):
    """Lets a device in once in a minute."""

    def admit(self, claim: LoginClaim, credential: Credential) -> Admission:
        return replace(super().admit(claim, credential), limits=SessionLimits(interval=60.0))


async def test_a_device_that_comes_again_too_soon(house: House, clock: Clock, lines: list[Any]) -> None:
    """Whether it is answered from the cache or not; it is not blocked for that."""
    house.admissions._protocols = (Patient(EnosSettings()),)
    assert await house.code(connect(login(secret="wrong"))) == 4
    assert await house.code(STATIC) == 0
    for _ in range(5):
        assert await house.code(STATIC) == 5
    assert await house.code(STATIC, Peer("192.0.2.2", 1)) == 5, "the device counts, not its address"
    assert (lines[-1]["reason"], lines[-1]["seconds"], lines[-1]["outcome"]) == ("rate_limited", 60.0, "refused")
    assert await house.code(connect(login(product="off"))) == 0
    clock.now += 60
    assert await house.code(STATIC) == 0
    house.credentials.forget(Identity("enos", "pk1", "dk1"))
    assert await house.code(STATIC) == 5
