"""What gateways may, first the judgement alone, then with what is written."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from provisioning.core.enrol import NOBODY
from provisioning.core.gateway import Gateways, Outcome, Standing, judge
from provisioning.model.credential import Credential, DeviceCredential, ProductCredential
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device
from provisioning.store import bindings, events
from provisioning.store.database import Database
from tests.provisioning.store.registry import add_device, add_product, execute, identity

SUB = identity("s1")


@dataclass
class Claim:
    """Holds for one secret and one certificate, and remembers with what it was tried."""

    identity: Identity = SUB
    secret: str = "secret of s1"
    certificate: bytes = b""
    by_certificate: bool | None = None
    tried: list[object] = field(default_factory=list)

    def proven_by(self, secret: str) -> bool:
        self.tried.append(secret)
        return secret == self.secret

    def proven_by_certificate(self, der: bytes) -> bool:
        self.tried.append(der)
        return der == self.certificate


def credential(*, certificates: bool = False, disabled: bool = False, device_id: int = 2) -> Credential:
    return Credential(
        identity("s1"),
        ProductCredential(
            id=1, secret="ps", dynamic_activation=False, auto_create=False, certificate_login=certificates
        ),
        DeviceCredential(
            id=device_id, secret="secret of s1", epoch=0, asset="", disabled=disabled, activated=False
        ),
    )  # fmt: skip


ALONE = Standing(gateway_id=1, is_bound=False, free=1, gateways={}, with_sub_devices=frozenset())
WRONG = {"secret": "no"}


@pytest.mark.parametrize(
    ("claim", "known", "standing", "expected"),
    [
        ({}, credential(), {}, Outcome.DONE),
        ({"by_certificate": False}, credential(), {}, Outcome.DONE),
        ({"by_certificate": True}, credential(), {}, Outcome.UNSUPPORTED),
        ({"by_certificate": False}, credential(certificates=True), {}, Outcome.UNSUPPORTED),
        ({"certificate": b"2"}, credential(certificates=True), {}, Outcome.DONE),
        ({"certificate": b"3"}, credential(certificates=True), {}, Outcome.NOT_PROVEN),
        (WRONG, credential(), {}, Outcome.NOT_PROVEN),
        (WRONG, credential(disabled=True), {"free": 0}, Outcome.NOT_PROVEN),
        ({}, credential(disabled=True), {}, Outcome.NOT_ALLOWED),
        ({}, credential(device_id=1), {}, Outcome.NOT_ORDINARY),
        ({}, credential(), {"with_sub_devices": frozenset({2})}, Outcome.NOT_ORDINARY),
        ({}, credential(), {"gateways": {2: 1}}, Outcome.REPEATED),
        ({}, credential(), {"gateways": {2: 3}}, Outcome.TAKEN),
        (WRONG, credential(), {"gateways": {2: 3}}, Outcome.NOT_PROVEN),
        ({}, credential(), {"is_bound": True}, Outcome.NOT_ALLOWED),
        ({}, credential(), {"free": 0}, Outcome.NOT_ALLOWED),
        ({}, Credential(identity("s1")), {}, Outcome.UNKNOWN),
        ({"secret": NOBODY}, Credential(identity("s1")), {}, Outcome.UNKNOWN),
    ],
)
def test_every_case(claim: dict[str, Any], known: Credential, standing: dict[str, Any], expected: Outcome) -> None:
    assert judge(Claim(**claim), known, [b"1", b"2"], replace(ALONE, **standing)) is expected


def test_without_a_device_a_proof_is_computed_all_the_same() -> None:
    claim = Claim()
    judge(claim, Credential(identity("s1")), [], ALONE)
    assert claim.tried == [NOBODY]


# --- with what is written ---

GATEWAY = identity("g1")


async def fleet(database: Database, *names: str) -> list[Device]:
    async with database.begin() as tx:
        product = await add_product(tx)
        return [await add_device(tx, product, name) for name in names]


def claims(*names: str) -> Sequence[Claim]:
    return [Claim(identity(name), f"secret of {name}") for name in names]


async def test_the_same_device_twice(database: Database) -> None:
    await fleet(database, "g1", "s1")
    gateways = Gateways(database, most=9)
    assert await gateways.bind(GATEWAY, claims("s1", "s1")) == [Outcome.DONE, Outcome.REPEATED]
    assert await gateways.online(GATEWAY, [identity("s1")] * 2) == [Outcome.DONE] * 2
    assert await gateways.unbind(GATEWAY, [identity("s1")] * 2) == [Outcome.DONE, Outcome.NOT_BOUND]
    async with database.read() as tx:
        assert [each.kind for each in await events.page(tx)] == ["device.bound", "device.activated", "device.unbound"]


async def test_a_gateway_that_is_not_there(database: Database) -> None:
    await fleet(database, "s1")
    gateways = Gateways(database, most=9)
    for asked in (
        gateways.bind(GATEWAY, claims("s1")), gateways.unbind(GATEWAY, [identity("s1")]),
        gateways.online(GATEWAY, [identity("s1")]), gateways.offline(GATEWAY, []), gateways.sub_devices(GATEWAY),
    ):  # fmt: skip
        with pytest.raises(Refusal) as caught:
            await asked
        assert caught.value.reason is Reason.UNKNOWN


async def test_a_secret_that_does_not_open(database: Database) -> None:
    await fleet(database, "g1", "s1")
    await execute(database, "UPDATE device SET secret = secret || '\\x00'::bytea WHERE key = 's1'")
    with pytest.raises(Refusal) as caught:
        await Gateways(database, most=9).bind(GATEWAY, claims("s1"))
    assert caught.value.reason is Reason.INTERNAL


async def test_a_device_that_is_deleted_meanwhile(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at it and the lock on it."""
    _, one, _ = await fleet(database, "g1", "s1", "s2")
    lock = bindings.lock

    async def delete_first(tx: Any, ids: Any) -> set[int]:
        await execute(database, "DELETE FROM device WHERE id = $1", one.id)
        return await lock(tx, ids)

    monkeypatch.setattr(bindings, "lock", delete_first)
    found = await Gateways(database, most=9).bind(GATEWAY, claims("s1", "s2"))
    assert found == [Outcome.UNKNOWN, Outcome.DONE]


async def test_races_for_the_last_place_and_for_each_other(database: Database) -> None:
    names = [f"s{number}" for number in range(12)]
    await fleet(database, "g1", "g2", *names)
    gateways = Gateways(database, most=5)
    found = await asyncio.gather(
        *(gateways.bind(GATEWAY, claims(name)) for name in names),
        gateways.bind(identity("g2"), claims("g1")),
        gateways.bind(GATEWAY, claims("g2")),
    )
    assert sum(each == [Outcome.DONE] for each in found) in {1, 5}, "never one too many, and no gateway behind another"
    async with database.read() as tx:
        rows = await tx.db.fetch(
            "SELECT gateway_id FROM binding WHERE gateway_id IN (SELECT sub_device_id FROM binding)"
        )
    assert rows == []


async def test_fifteen_hundred(database: Database) -> None:
    """Reference, section 7: the limit of a gateway."""
    gateway, *_ = await fleet(database, "g1", "s1", "s2")
    await execute(
        database,
        "INSERT INTO device (protocol, product_id, key, secret, state) SELECT d.protocol, d.product_id, 'x' || n, "
        "d.secret, 'allocated' FROM device d, generate_series(1, 1499) n WHERE d.key = 's1'",
    )
    await execute(
        database, "INSERT INTO binding (sub_device_id, gateway_id) SELECT id, $1 FROM device WHERE key LIKE 'x%'",
        gateway.id,
    )  # fmt: skip
    gateways = Gateways(database, most=1_500)
    assert await gateways.bind(GATEWAY, claims("s1", "s2")) == [Outcome.DONE, Outcome.NOT_ALLOWED]
    assert len(await gateways.sub_devices(GATEWAY)) == 1_500
