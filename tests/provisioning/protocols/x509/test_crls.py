"""provisioning/protocols/x509/crls.py"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest
from cryptography import x509

from provisioning.core import ca, inventory
from provisioning.model.certificate import Authority, Revocation
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.x509.crls import Crl, Crls
from provisioning.store import certificates
from provisioning.store.database import Database
from tests.certificates import KEY, NOW, days, issue, run
from tests.openssl import made

pytestmark = pytest.mark.server

Get = Callable[..., Awaitable[Crl]]


@pytest.fixture
async def authority(database: Database) -> Authority:
    found: Authority = await run(database, ca.ensure_default, KEY, now=NOW)
    return found


@pytest.fixture
def get(database: Database, authority: Authority) -> Get:
    crls = Crls()

    async def get(now: datetime = NOW, **of: Any) -> Crl:
        return await crls.get(
            database, of.get("name", authority.name), of.get("generation", 1), now=now, validity=days(8)
        )

    return get


def serials(crl: Crl) -> set[str]:
    return {f"{each.serial_number:x}" for each in x509.load_der_x509_crl(crl.der)}


async def test_the_number_grows_when_there_is_something_new(database: Database, authority: Authority, get: Get) -> None:
    one, two = await issue(database, authority), await issue(database, authority)
    first = await get()
    assert (first.number, serials(first)) == (1, set())
    assert first.next_update == NOW + days(8)
    assert await get() is first
    steps: list[tuple[Any, dict[str, Any], Any, set[str]]] = [
        (inventory.hold, {}, one, {one.serial}),
        (inventory.release, {}, one, set()),
        (inventory.revoke, {}, one, {one.serial}),
        (inventory.hold, {}, two, {one.serial, two.serial}),
        (inventory.revoke, {"reason": Revocation.KEY_COMPROMISE}, two, {one.serial, two.serial}),
    ]
    for number, (verb, more, which, expected) in enumerate(steps, 2):
        await run(database, verb, which, now=NOW, **more)
        found = await get()
        assert (found.number, serials(found)) == (number, expected), verb.__name__
        assert await get() is found


async def test_a_hold_here_and_a_release_there_are_seen(database: Database, authority: Authority, get: Get) -> None:
    """In one moment: neither a count nor the latest time tells."""
    one, two = await issue(database, authority), await issue(database, authority)
    await run(database, inventory.hold, one, now=NOW)
    assert serials(await get()) == {one.serial}
    async with database.begin() as tx:
        await inventory.release(tx, one, now=NOW)
        await inventory.hold(tx, two, now=NOW)
    assert serials(await get()) == {two.serial}


async def test_what_is_issued_changes_nothing(database: Database, authority: Authority, get: Get) -> None:
    first = await get()
    await issue(database, authority)
    assert await get() is first


async def test_half_of_its_life(database: Database, authority: Authority, get: Get) -> None:
    first = await get()
    assert await get(NOW + days(3.99)) is first
    second = await get(NOW + days(4.01))
    assert (second.number, second.next_update) == (2, NOW + days(12.01))
    assert (await get(NOW)).number == 3, "a clock that was set back: a CRL of the future helps nobody"


async def test_many_ask_at_once_and_one_is_made(database: Database, authority: Authority, get: Get) -> None:
    found = await asyncio.gather(*(get() for _ in range(20)))
    assert {each.number for each in found} == {1}


async def test_a_change_while_it_is_made_is_on_the_next(
    database: Database, authority: Authority, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaf, real = await issue(database, authority), certificates.crl_entries

    async def crl_entries(tx: Any, *arguments: Any) -> Any:
        found = await real(tx, *arguments)
        async with database.begin() as other:
            await inventory.revoke(other, leaf, now=NOW)
        return found

    monkeypatch.setattr(certificates, "crl_entries", crl_entries)
    assert serials(await get()) == set()
    monkeypatch.undo()
    assert serials(await get()) == {leaf.serial}


async def test_generations_are_apart(database: Database, authority: Authority, get: Get) -> None:
    old = await issue(database, authority)
    new = await run(database, ca.rotate, authority, await ca.make_key(), now=NOW)
    leaf = await issue(database, new)
    for each in (old, leaf):
        await run(database, inventory.revoke, each, now=NOW)
    assert serials(await get()) == {old.serial}
    assert serials(await get(generation=2)) == {leaf.serial}


async def test_refusals(database: Database, get: Get) -> None:
    await run(database, ca.trust, "theirs", made("theirs").certificate)
    cases: list[tuple[dict[str, Any], Reason]] = [
        ({"name": "nobody"}, Reason.UNKNOWN),
        ({"generation": 2}, Reason.UNKNOWN),
        ({"name": "theirs"}, Reason.ILLEGAL_TRANSITION),
    ]
    for of, reason in cases:
        with pytest.raises(Refusal) as caught:
            await get(**of)
        assert caught.value.reason is reason
