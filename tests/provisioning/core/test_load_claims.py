"""Devices with their claims in bulk: created, changed, repeated, refused one by one."""

import asyncio
from typing import Any

import pytest

from provisioning.core import claims, load_claims
from provisioning.core.load import Outcome
from provisioning.model.claim import Claim, ClaimableSpec, CloudType
from provisioning.model.lifecycle import State
from provisioning.model.refusal import Reason, Refusal
from provisioning.store import claims as store
from provisioning.store.database import Database
from tests.provisioning.store.registry import PROTOCOL, add_product

CREATED, UPDATED, UNCHANGED = Outcome.CREATED, Outcome.UPDATED, Outcome.UNCHANGED


@pytest.fixture(autouse=True)
async def _products(database: Database) -> None:
    async with database.begin() as tx:
        await add_product(tx)
        await add_product(tx, "other")


def spec(key: str = "D1", **more: Any) -> ClaimableSpec:
    return ClaimableSpec(**{"protocol": PROTOCOL, "product": "pk", "key": key} | more)


async def put(database: Database, *specs: ClaimableSpec) -> list[Outcome | Reason]:
    async with database.begin() as tx:
        results = await load_claims.put_devices(tx, specs)
    return [result.reason if isinstance(result, Refusal) else result[0] for result in results]


async def held(database: Database, key: str = "D1") -> Claim | None:
    async with database.read() as tx:
        return await claims.claim_of(tx, await claims.device(tx, PROTOCOL, key))


async def test_created_and_repeated(database: Database) -> None:
    specs = [spec("D1"), spec("D2", account="ACC1", cloud_type=CloudType.DEDICATED, name="n", disabled=True)]
    assert await put(database, *specs) == [CREATED, CREATED]
    assert await put(database, *specs) == [UNCHANGED, UNCHANGED]
    async with database.read() as tx:
        found = await store.find_all(tx, PROTOCOL, ["D1", "D2"])
    assert (found["D1"].state, found["D1"].secret, found["D1"].key) == (State.REGISTERED, "", "D1")
    assert (found["D2"].state, found["D2"].name, found["D2"].disabled) == (State.ALLOCATED, "n", True)
    assert found["D2"].secret
    claim = await held(database, "D2")
    assert claim is not None
    assert (claim.account, claim.cloud_type, claim.cloud_name) == ("ACC1", CloudType.DEDICATED, "main")


async def test_changes(database: Database) -> None:
    await put(database, spec())
    assert await put(database, spec(account="ACC1")) == [UPDATED]
    assert await put(database, spec(account="ACC1", cloud_region="east")) == [UPDATED]
    assert await put(database, spec(account="ACC1")) == [UNCHANGED], "what is not stated stays as it is"
    assert await put(database, spec(name="n"), spec(disabled=True)) == [UPDATED, UPDATED]
    assert await put(database, spec()) == [UNCHANGED]
    claim = await held(database)
    assert claim is not None
    assert (claim.account, claim.cloud_region) == ("ACC1", "east")


async def test_the_same_device_twice(database: Database) -> None:
    assert await put(database, spec(), spec(), spec(account="ACC1"), spec(account="ACC2")) == [
        CREATED, UNCHANGED, UPDATED, Reason.ILLEGAL_TRANSITION,
    ]  # fmt: skip


async def test_a_row_that_is_refused_hinders_no_other(database: Database) -> None:
    await put(database, spec("D1", account="ACC1"))
    assert await put(
        database, spec("D1", account="ACC2"), spec("D1", product="other"), spec("D9", product="nope"), spec("D2")
    ) == [Reason.ILLEGAL_TRANSITION, Reason.DUPLICATE, Reason.UNKNOWN, CREATED]
    assert await put(database) == []


async def test_two_who_write_at_once(database: Database) -> None:
    async def one() -> object:
        try:
            return await put(database, spec())
        except Refusal as refusal:
            return refusal.reason

    results = await asyncio.gather(one(), one())
    assert [CREATED] in results
    assert all(result in ([CREATED], [UNCHANGED], Reason.DUPLICATE) for result in results)
