"""provisioning/store/authorities.py"""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from provisioning.model.certificate import Authority, Certificate, Profile
from provisioning.model.refusal import Reason, Refusal
from provisioning.store import authorities, certificates
from provisioning.store.database import Database
from provisioning.store.sealing import SealError

pytestmark = pytest.mark.server

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEY = "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n"


def authority(name: str = "a", generation: int = 1, certificate: bytes = b"", **more: object) -> Authority:
    plain = Authority(
        name=name, generation=generation, certificate=certificate or f"{name}/{generation}".encode(), key_type="p256",
        has_key=True, serial="1", subject="CN=a", not_before=NOW, not_after=NOW + timedelta(days=10),
    )  # fmt: skip
    return replace(plain, **more)  # type: ignore[arg-type]


async def add(database: Database, wanted: Authority, key: str = KEY) -> Authority:
    async with database.begin() as tx:
        return await authorities.add(tx, replace(wanted, has_key=bool(key)), key)


async def test_an_authority_comes_back_as_it_went_in(database: Database) -> None:
    added = await add(database, authority(chain=(b"middle", b"root"), is_default=True))
    async with database.read() as tx:
        assert await authorities.by_id(tx, added.id) == added
        assert await authorities.find(tx, "a") == added
        assert await authorities.find(tx, "a", 2) is None
        assert await authorities.by_certificate(tx, b"a/1") == added
        assert await authorities.default(tx) == added
        assert await authorities.key(tx, added) == (KEY, True)


async def test_the_key_is_sealed_to_its_row(database: Database, database_url: str) -> None:
    first, second = await add(database, authority()), await add(database, authority("b"))
    connection = await asyncpg.connect(database_url)
    sealed = await connection.fetchval("SELECT key FROM authority WHERE id = $1", first.id)
    assert b"secret" not in sealed
    await connection.execute("UPDATE authority SET key = $1 WHERE id = $2", sealed, second.id)
    await connection.close()
    async with database.read() as tx:
        with pytest.raises(SealError, match=r"authority\|b\|1"):
            await authorities.key(tx, second)


async def test_without_a_key_there_is_none(database: Database) -> None:
    added = await add(database, authority(), key="")
    async with database.read() as tx:
        assert await authorities.key(tx, added) == ("", False)
        assert await authorities.key(tx, replace(added, id=999)) == ("", False)
        assert added.has_key is False


async def test_the_latest_generation_is_found(database: Database) -> None:
    first = await add(database, authority())
    async with database.begin() as tx:
        await authorities.retire(tx, first, NOW)
    second = await add(database, authority(generation=2))
    async with database.read() as tx:
        assert await authorities.find(tx, "a") == second
        old = await authorities.find(tx, "a", 1)
        assert old is not None
        assert old.retired_at == NOW
        assert await authorities.every(tx) == [old, second]


@pytest.mark.parametrize(
    ("second", "constraint"),
    [
        (authority(certificate=b"other"), "authority_name_key"),
        (authority("b", certificate=b"a/1"), "authority_certificate_key"),
        (authority("b", is_default=True), "authority_one_default"),
        (authority(generation=2), "authority_one_current"),
    ],
)
async def test_refuses_a_second_one(database: Database, second: Authority, constraint: str) -> None:
    await add(database, authority(is_default=True))
    with pytest.raises(Refusal) as caught:
        await add(database, second)
    assert caught.value.reason is Reason.DUPLICATE
    cause = caught.value.__cause__
    assert isinstance(cause, asyncpg.UniqueViolationError)
    assert cause.constraint_name == constraint


async def test_a_default_can_sign(database: Database) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="authority_default"):
        await add(database, authority(is_default=True), key="")


async def test_trusted_are_those_that_are_valid_now(database: Database) -> None:
    wanted = [
        await add(database, authority("retired", retired_at=None)),
        await add(database, authority("valid")),
    ]
    async with database.begin() as tx:
        await authorities.retire(tx, wanted[0], NOW)
    distrusted = await add(database, authority("distrusted"))
    async with database.begin() as tx:
        await authorities.distrust(tx, distrusted, NOW)
    await add(database, authority("expired", not_before=NOW - timedelta(days=2), not_after=NOW))
    await add(database, authority("early", not_before=NOW + timedelta(hours=1)))
    async with database.read() as tx:
        assert [each.name for each in await authorities.trusted(tx, NOW)] == ["retired", "valid"]


async def test_crl_numbers_rise_and_come_back_when_nothing_is_written(database: Database) -> None:
    added = await add(database, authority())
    async with database.begin() as tx:
        assert [await authorities.next_crl_number(tx, added) for _ in range(3)] == [1, 2, 3]
    with suppress(Refusal):
        async with database.begin() as tx:
            await authorities.next_crl_number(tx, added)
            raise Refusal(Reason.INTERNAL)
    async with database.begin() as tx:
        assert await authorities.next_crl_number(tx, added) == 4


async def test_responders(database: Database) -> None:
    added = await add(database, authority())
    for n, life in ((1, 5), (2, 30), (3, 20)):
        leaf = Certificate(
            authority_id=added.id, serial=str(n), fingerprint=bytes([n] * 32).hex(), der=f"der {n}".encode(),
            profile=Profile.OCSP, cn="", not_before=NOW, not_after=NOW + timedelta(days=life),
        )  # fmt: skip
        async with database.begin() as tx:
            stored = await certificates.add(tx, leaf)
            assert stored is not None
            await authorities.add_responder(tx, added, stored.id, str(n), f"key {n}")
    async with database.begin() as tx:
        for now, until, wanted in ((0, 10, b"der 2"), (0, 29, b"der 2"), (0, 31, None), (-1, 10, None)):
            found = await authorities.responder(tx, added, NOW + timedelta(days=now), NOW + timedelta(days=until))
            assert (found and found[0]) == wanted, f"from day {now} to day {until}"
        found = await authorities.responder(tx, added, NOW, NOW)
        assert found == (b"der 2", "key 2")
        await authorities.prune_responders(tx, added, NOW + timedelta(days=21))
        assert await tx.db.fetchval(
            "SELECT array_agg(c.serial) FROM responder r JOIN certificate c ON c.id = r.certificate_id"
        ) == ["2"]
