import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from provisioning.core import updates
from provisioning.core.updates import Offer, StopRule, Update, bucket
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Product
from provisioning.store import events
from provisioning.store.database import Database
from tests.conftest import until
from tests.provisioning.store.registry import PROTOCOL, add_device, add_product

pytestmark = pytest.mark.server

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
CHECKSUM = "41bb20919c5d1d1eb2299079216a300c0fcbf4c5e2ebf0e418ea15919f07fe7f"
VECTORS = json.loads((Path(__file__).parents[2] / "vectors.json").read_text("utf-8"))["ioto"]["rollout_bucket"]


def new(version: str = "1.4.0", **more: Any) -> Update:
    fields: dict[str, Any] = {
        "protocol": PROTOCOL,
        "product": "pk",
        "checksum": CHECKSUM,
        "size": 14,
        "file": "image.bin",
    } | more
    return Update(version=version, **fields)


class Fleet:
    """A product with devices, who ask for updates."""

    def __init__(self, database: Database, product: Product) -> None:
        self.database = database
        self.product = product

    async def add(self, *keys: str) -> None:
        async with self.database.begin() as tx:
            for key in keys:
                await add_device(tx, self.product, key)

    async def publish(self, version: str = "1.4.0", **more: Any) -> str:
        async with self.database.begin() as tx:
            return (await updates.publish(tx, new(version, **more))).name

    async def ask(
        self,
        device: str = "d",
        version: str | None = "1.0.0",
        *,
        now: datetime = NOW,
        test: bool = False,
        **more: Any,
    ) -> Offer | None:
        async with self.database.begin() as tx:
            return await updates.offer(
                tx, protocol=PROTOCOL, product="pk", device=device, version=version, test=test, now=now,
                fields={"version": version} | more,
            )  # fmt: skip

    async def asked(self, device: str = "d", version: str | None = "1.0.0", **more: Any) -> str | None:
        """The version that is offered."""
        offer = await self.ask(device, version, **more)
        return offer.version if offer else None

    async def report(self, update: str, device: str = "d", *, success: bool = True, **more: Any) -> None:
        async with self.database.begin() as tx:
            await updates.report(
                tx, protocol=PROTOCOL, product="pk", device=device, update_id=update, success=success, now=NOW, **more
            )  # fmt: skip

    async def look(self, update: str) -> Update:
        async with self.database.read() as tx:
            return await updates.find(tx, update)


@pytest.fixture
async def fleet(database: Database) -> Fleet:
    async with database.begin() as tx:
        product = await add_product(tx)
        await add_product(tx, "other")
    made = Fleet(database, product)
    await made.add("d")
    return made


# --- what is offered ---


async def test_a_device_is_told_what_it_needs(fleet: Fleet) -> None:
    name = await fleet.publish("v1.4", file="fw.bin")
    assert await fleet.ask() == Offer(checksum=CHECKSUM, version="1.4.0", update_id=name, file="fw.bin", size=14)


async def test_without_an_update_there_is_none(fleet: Fleet) -> None:
    assert await fleet.ask() is None
    await fleet.publish(product="other")
    assert await fleet.ask() is None


@pytest.mark.parametrize(
    ("runs", "offered"),
    [
        ("1.0.0", "1.10.0"), ("v1.9.9", "1.10.0"), ("1.10.0-rc.1", "1.10.0"), ("1.9", "1.10.0"), (None, "1.10.0"),
        ("", "1.10.0"), ("1.10.0", None), ("1.10.0+build", None), ("v1.10.0", None), ("1.10.1", None), ("2", None),
        ("nightly", None),
    ],
)  # fmt: skip
async def test_the_newest_by_its_version_and_only_above_the_devices_own(
    fleet: Fleet, runs: str | None, offered: str | None
) -> None:
    for version in ("1.9.0", "1.10.0", "1.2.0"):
        await fleet.publish(version)
    assert await fleet.asked(version=runs) == offered


async def test_of_one_version_the_one_that_was_published_last(fleet: Fleet) -> None:
    await fleet.publish()
    last = await fleet.publish()
    offer = await fleet.ask()
    assert offer
    assert offer.update_id == last


async def test_a_version_that_cannot_be_read_is_told_in_the_log_where_it_matters(fleet: Fleet) -> None:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    with structlog.testing.capture_logs() as lines:
        assert await fleet.ask(version="nightly") is None
        assert lines == []
        await fleet.publish()
        assert await fleet.ask(version="nightly") is None
    structlog.configure(**before)
    assert [(line["event"], line["device"], line["version"]) for line in lines] == [
        ("update.version_unreadable", "d", "nightly")
    ]


async def test_the_first_whose_policy_holds(fleet: Fleet) -> None:
    await fleet.publish("1.6.0", policy='model == "m2"')
    await fleet.publish("1.5.0", policy='model == "m1" and version >= "1.2"')
    await fleet.publish("1.4.0")
    assert await fleet.asked(model="m2") == "1.6.0"
    assert await fleet.asked(version="1.2.0", model="m1") == "1.5.0"
    assert await fleet.asked(version="1.1.0", model="m1") == "1.4.0"
    assert await fleet.asked() == "1.4.0"


async def test_test_devices_see_test_updates_and_production_devices_never_do(fleet: Fleet) -> None:
    await fleet.publish("2.0.0", test=True)
    assert await fleet.asked() is None
    assert await fleet.asked(test=True) == "2.0.0"
    await fleet.publish("1.4.0")
    assert await fleet.asked() == "1.4.0"
    assert await fleet.asked(test=True) == "2.0.0"
    assert await fleet.asked(version="2.0.0", test=True) is None


@pytest.mark.parametrize("vector", VECTORS, ids=[each["name"] for each in VECTORS])
def test_buckets(vector: dict[str, Any]) -> None:
    assert bucket(vector["inputs"]["updateId"], vector["inputs"]["deviceId"]) == vector["expected"]


async def test_a_percentage_of_the_devices_the_same_ones_always(fleet: Fleet) -> None:
    devices = [f"d{number}" for number in range(40)]
    await fleet.add(*devices)
    await fleet.publish("1.3.0")
    name = await fleet.publish("1.4.0", percentage=30)
    chosen = {device for device in devices if bucket(name, device) < 30}
    assert 0 < len(chosen) < 40
    for _ in range(2):
        offered = {device: await fleet.asked(device) for device in devices}
        assert offered == {device: "1.4.0" if device in chosen else "1.3.0" for device in devices}


async def test_a_repeated_offer_counts_once(fleet: Fleet) -> None:
    await fleet.add("e")
    name = await fleet.publish(max_devices=1, rate=1)
    assert [await fleet.asked() for _ in range(3)] == ["1.4.0"] * 3
    assert (await fleet.look(name)).offered == 1
    assert await fleet.asked("e") is None


async def test_when_the_number_of_devices_is_reached_others_get_what_is_older(fleet: Fleet) -> None:
    await fleet.add("e")
    await fleet.publish("1.3.0")
    await fleet.publish("1.4.0", max_devices=1)
    assert await fleet.asked("e") == "1.4.0"
    assert await fleet.asked("d") == "1.3.0"
    assert await fleet.asked("e") == "1.4.0"


async def test_who_only_has_to_wait_waits(fleet: Fleet) -> None:
    await fleet.add("e", "f")
    await fleet.publish("1.3.0")
    name = await fleet.publish("1.4.0", rate=2, rate_period=60)
    assert await fleet.asked("d") == "1.4.0"
    assert await fleet.asked("e", now=NOW + timedelta(seconds=30)) == "1.4.0"
    assert await fleet.asked("f", now=NOW + timedelta(seconds=59)) is None
    assert await fleet.asked("d", now=NOW + timedelta(seconds=59)) == "1.4.0"
    assert await fleet.asked("f", now=NOW + timedelta(seconds=60)) == "1.4.0"
    assert (await fleet.look(name)).offered == 3


@pytest.mark.parametrize("limit", [{"max_devices": 5}, {"rate": 5}])
async def test_limits_hold_when_all_ask_at_once(fleet: Fleet, limit: dict[str, Any]) -> None:
    devices = [f"d{number}" for number in range(20)]
    await fleet.add(*devices)
    name = await fleet.publish(**limit)
    offered = await asyncio.gather(*(fleet.asked(device) for device in devices))
    assert offered.count("1.4.0") == 5
    assert (await fleet.look(name)).offered == 5
    again = [await fleet.asked(device) for device in devices]
    assert again == offered


async def test_one_device_that_asks_often_at_once_counts_once(fleet: Fleet) -> None:
    name = await fleet.publish(max_devices=1)
    assert await asyncio.gather(*(fleet.asked() for _ in range(8))) == ["1.4.0"] * 8
    assert (await fleet.look(name)).offered == 1


WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def test_what_is_stopped_at_this_moment_is_not_offered(fleet: Fleet) -> None:
    await fleet.publish("1.3.0")
    name = await fleet.publish("1.4.0")
    async with fleet.database.begin() as tx:
        await updates.stop(tx, name, NOW)
        asks = asyncio.create_task(fleet.asked())
        await until(lambda: tx.db.fetchval(WAITING), "the device that asks to wait for the one who stops")
    assert await asks == "1.3.0"
    assert (await fleet.look(name)).offered == 0


async def test_an_offer_that_is_not_committed_does_not_count(fleet: Fleet) -> None:
    name = await fleet.publish(max_devices=1)
    with pytest.raises(RuntimeError):  # noqa: PT012 - it comes when all is done but the commit
        async with fleet.database.begin() as tx:
            await updates.offer(
                tx, protocol=PROTOCOL, product="pk", device="d", fields={}, test=False, version=None, now=NOW
            )  # fmt: skip
            raise RuntimeError
    assert (await fleet.look(name)).offered == 0


async def test_a_device_that_is_not_there_is_offered_nothing(fleet: Fleet) -> None:
    await fleet.publish()
    assert await fleet.ask("x") is None


# --- reports ---


async def test_the_last_report_of_a_device_counts(fleet: Fleet) -> None:
    name = await fleet.publish()
    await fleet.ask()
    for success, counts in ((False, (0, 1)), (False, (0, 1)), (True, (1, 0)), (True, (1, 0)), (False, (0, 1))):
        await fleet.report(name, success=success)
        found = await fleet.look(name)
        assert (found.succeeded, found.failed) == counts


async def test_reports_of_many_devices_at_once(fleet: Fleet) -> None:
    devices = [f"d{number}" for number in range(12)]
    await fleet.add(*devices)
    name = await fleet.publish()
    for device in devices:
        await fleet.ask(device)
    await asyncio.gather(*(fleet.report(name, device, success=at % 3 > 0) for at, device in enumerate(devices)))
    found = await fleet.look(name)
    assert (found.succeeded, found.failed, found.stopped_at) == (8, 4, None)


@pytest.mark.parametrize(
    "update", ["", "1", "upd", "upd0", "upd01", "upd99", f"upd{10**19}", "UPD1", "upd1\n", "upd-1"]
)
async def test_a_report_on_what_is_not_there_is_refused(fleet: Fleet, update: str) -> None:
    with pytest.raises(Refusal) as caught:
        await fleet.report(update)
    assert caught.value.reason is Reason.UNKNOWN


async def test_a_report_on_what_was_never_offered_is_refused(fleet: Fleet) -> None:
    name, other = await fleet.publish(), await fleet.publish(product="other")
    for update in (name, other):
        with pytest.raises(Refusal) as caught:
            await fleet.report(update)
        assert caught.value.reason is Reason.UNKNOWN


async def test_an_update_that_fails_too_often_stops_itself(fleet: Fleet) -> None:
    devices = [f"d{number}" for number in range(5)]
    await fleet.add(*devices)
    name = await fleet.publish()
    for device in devices:
        await fleet.ask(device)
    rule = StopRule(after=4, share=50)
    for device, success in zip(devices[:4], (False, True, True, False), strict=True):
        await fleet.report(name, device, success=success, rule=rule)
        assert (await fleet.look(name)).stopped_at is None
    await fleet.report(name, devices[4], success=False, rule=rule)
    stopped = await fleet.look(name)
    assert (stopped.stopped_at, stopped.why_stopped) == (NOW, "3 of 5 devices reported failure")
    assert await fleet.ask("d") is None
    assert await fleet.ask(devices[0]) is None
    async with fleet.database.read() as tx:
        found = await events.page(tx)
    assert [(each.kind, each.product, each.device) for each in found] == [("update.stopped", "pk", devices[4])]
    await fleet.report(name, devices[3], success=False, rule=rule)
    async with fleet.database.read() as tx:
        assert await events.page(tx) == found


@pytest.mark.parametrize(
    ("after", "share", "succeeded", "failed", "met"),
    [
        (10, 50, 4, 5, False), (10, 50, 4, 6, True), (10, 50, 5, 5, False), (1, 0, 0, 1, True), (1, 0, 5, 0, False),
        (0, 0, 0, 9, False), (10, 100, 0, 99, False), (1, 50, 0, 0, False),
    ],
)  # fmt: skip
def test_when_the_rule_is_met(after: int, share: int, succeeded: int, failed: int, met: bool) -> None:
    assert StopRule(after, share).is_met(succeeded, failed) == met


# --- administration ---


async def test_what_is_stopped_is_offered_to_nobody(fleet: Fleet) -> None:
    name = await fleet.publish()
    assert await fleet.asked()
    async with fleet.database.begin() as tx:
        stopped = await updates.stop(tx, name, NOW)
    assert stopped == await fleet.look(name)
    assert stopped.why_stopped == "by an administrator"
    assert await fleet.asked() is None
    with pytest.raises(Refusal) as caught:
        async with fleet.database.begin() as tx:
            await updates.stop(tx, name, NOW)
    assert caught.value.reason is Reason.ILLEGAL_TRANSITION


async def test_what_is_deleted_is_gone_with_its_offers(fleet: Fleet) -> None:
    name = await fleet.publish()
    await fleet.ask()
    async with fleet.database.begin() as tx:
        assert (await updates.delete(tx, name)).offered == 1
    for verb in (updates.find, updates.delete):
        with pytest.raises(Refusal) as caught:
            async with fleet.database.begin() as tx:
                await verb(tx, name)
        assert caught.value.reason is Reason.UNKNOWN
    with pytest.raises(Refusal):
        await fleet.report(name)


async def test_an_update_needs_a_product(fleet: Fleet) -> None:
    with pytest.raises(Refusal) as caught:
        await fleet.publish(product="nope")
    assert caught.value.detail == {"product": "nope"}


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"version": "next"}, "version"), ({"version": ""}, "version"), ({"policy": "a ="}, "policy"),
        ({"percentage": 0}, "percentage"), ({"percentage": 101}, "percentage"), ({"max_devices": 0}, "max"),
        ({"max_devices": 2**31}, "max"), ({"rate": -1}, "rate"),
    ],
)  # fmt: skip
def test_what_cannot_be_published(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(Refusal) as caught:
        updates.check(new(**fields))
    assert caught.value.reason is Reason.MALFORMED
    assert caught.value.detail["field"] == name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/tmp/fw-1.4.0.bin", "fw-1.4.0.bin"), ("Über Gerät.bin", "ber_Ger_t.bin"), ("..", "image"), ("...x", "x"),
        ("", "image"), ("a/b\\c?d#e&f", "b_c_d_e_f"), (f"{'x' * 120}.bin", f"{'x' * 96}.bin"), (".hidden", "hidden"),
    ],
)  # fmt: skip
def test_names_for_links(path: str, name: str) -> None:
    assert updates.file_name(path) == name
