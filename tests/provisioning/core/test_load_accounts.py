"""Accounts, device profiles and modules in bulk: created, changed, repeated, refused one by one."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from provisioning.core import accounts, load_accounts, registry
from provisioning.core.importing import Result, import_rows, put_devices, words
from provisioning.core.load import Outcome
from provisioning.model.account import AccountSpec, ModuleDevice, ModuleSpec, ProfileSpec
from provisioning.model.lifecycle import State
from provisioning.model.module import Module
from provisioning.model.refusal import Refusal
from provisioning.model.registry import Device
from provisioning.protocols.ublox.rows import read_row
from provisioning.protocols.ublox.wire import PROTOCOL
from provisioning.store import accounts as store
from provisioning.store import devices, groups, modules, products, tenants, whitelist
from provisioning.store.database import Database, Tx
from provisioning.store.lists import List, locate
from provisioning.store.whitelist import Kind
from tests.ublox import KEY, OTHER_KEY, PROFILE, ROOT_SECRET, SECRET, make_account

CREATED, UPDATED, UNCHANGED = Outcome.CREATED, Outcome.UPDATED, Outcome.UNCHANGED
NOW = datetime.now(UTC).replace(microsecond=0)
UID, OTHER_UID, THIRD_UID = "0002000089280087", "0002000089280088", "0002000089280089"
IMEI = "862618583984360"


def account_spec(**stated: Any) -> AccountSpec:
    return AccountSpec(**{"protocol": PROTOCOL, "key": KEY, **stated})


def profile_spec(**stated: Any) -> ProfileSpec:
    return ProfileSpec(**{"protocol": PROTOCOL, "key": PROFILE, "product": KEY, **stated})


def spec(key: str = UID, **stated: Any) -> ModuleSpec:
    return ModuleSpec(**{"protocol": PROTOCOL, "product": KEY, "key": key, "secret": ROOT_SECRET.hex(), **stated})


async def put_account(database: Database, **stated: Any) -> Outcome:
    async with database.begin() as tx:
        return (await load_accounts.put_account(tx, account_spec(**stated)))[0]


async def put(database: Database, *specs: ModuleSpec) -> list[Outcome | str]:
    """What became of each; refusals in words."""
    async with database.begin() as tx:
        results = await load_accounts.put_modules(tx, specs, now=NOW)
    return [words(result) if isinstance(result, Refusal) else result[0] for result in results]


async def module(database: Database, uid: str = UID) -> Module:
    async with database.read() as tx:
        found = await modules.by_uid(tx, uid, with_secret=True)
    assert found is not None
    return found


async def exported(database: Database, uid: str = UID) -> ModuleDevice:
    async with database.read() as tx:
        found = await modules.by_uid(tx, uid)
        assert found is not None
        (device,) = await tenants.with_modules(tx, await devices.by_ids(tx, [found.id]))
    assert isinstance(device, ModuleDevice)
    return device


async def suspicions(database: Database) -> set[tuple[str, str, str]]:
    async with database.read() as tx:
        rows = await tx.db.fetch("SELECT uid, reason, value FROM suspicion JOIN module USING (device_id)")
    return {(row["uid"], row["reason"], row["value"]) for row in rows}


# --- accounts and profiles ---


async def test_an_account_is_created_changed_and_repeated(database: Database) -> None:
    with pytest.raises(Refusal) as refused:
        await put_account(database, name="n")
    assert words(refused.value) == "apiSecret is missing"
    assert await put_account(database, secret=SECRET, demo=True) is CREATED
    assert await put_account(database, secret=SECRET) is UNCHANGED
    assert await put_account(database) is UNCHANGED
    assert await put_account(database, secret_hash=accounts.hash_secret(SECRET)) is UNCHANGED
    async with database.read() as tx:
        made = await accounts.find(tx, PROTOCOL, KEY)
        assert (made.strict_e2e, made.certificates, made.name, made.generation) == (False, True, "", 1)
    assert await put_account(database, strict_e2e=True, name="Meters") is UPDATED
    assert await put_account(database, certificates=False, demo=False) is UPDATED
    assert await put_account(database, name="Meters") is UNCHANGED
    async with database.read() as tx:
        changed = await accounts.find(tx, PROTOCOL, KEY)
        product = await products.find(tx, PROTOCOL, KEY)
    assert product is not None
    assert (changed.strict_e2e, changed.certificates, changed.name, product.demo) == (True, False, "Meters", False)
    assert changed.generation == 1, "the secret is the same: tokens go on"


async def test_another_secret_ends_tokens(database: Database) -> None:
    account = await make_account(database)
    async with database.begin() as tx:
        token = await accounts.give_refresh_token(tx, account, now=NOW)
    assert await put_account(database, secret="another-secret-of-it") is UPDATED
    async with database.read() as tx:
        assert (await accounts.prove(tx, PROTOCOL, KEY, "another-secret-of-it")).generation == 2
        with pytest.raises(Refusal):
            await accounts.refresh(tx, PROTOCOL, KEY, token, now=NOW)


async def test_a_profile_is_created_changed_and_repeated(database: Database) -> None:
    account = await make_account(database)
    await make_account(database, OTHER_KEY)

    async def put_profile(**stated: Any) -> Outcome:
        async with database.begin() as tx:
            return (await load_accounts.put_profile(tx, profile_spec(**stated)))[0]

    assert await put_profile(name="meters-eu", whitelist_check=False) is CREATED
    assert await put_profile(name="meters-eu", whitelist_check=False) is UNCHANGED
    assert await put_profile() is UNCHANGED
    assert await put_profile(name="meters") is UPDATED
    assert await put_profile(whitelist_check=True) is UPDATED
    async with database.read() as tx:
        group = await groups.find(tx, PROTOCOL, PROFILE)
        assert group is not None
        assert (group.name, group.product_id) == ("meters", account.id)
        assert await tenants.whitelist_checks(tx, [group.id]) == {group.id: True}
    for wrong, why in (
        ({"product": OTHER_KEY}, "profile is taken by another one"),
        ({"product": "nobody"}, "there is no account nobody"),
    ):
        with pytest.raises(Refusal) as refused:
            await put_profile(**wrong)
        assert words(refused.value) == why


# --- modules ---


async def test_modules_are_created_and_repeated(database: Database) -> None:
    await make_account(database)
    stated = [
        spec(device_serial="SN1", imei=IMEI, name="n", disabled=True), spec(OTHER_UID), spec(product="nobody"),
        spec(THIRD_UID, secret=None),
    ]  # fmt: skip
    failures = ["there is no account nobody", "rootSecret is missing"]
    assert await put(database, *stated) == [CREATED, CREATED, *failures]
    assert await put(database, *stated) == [UNCHANGED, UNCHANGED, *failures]
    found = await module(database)
    assert (found.secret, found.disabled, found.imei) == (ROOT_SECRET.hex(), True, IMEI)
    assert (found.production_serial, found.device_serial) == ("SN1", "SN1")
    assert (found.activated, found.bootstrapped_at, found.whitelisted, found.blacklisted) == (False, None, False, False)
    device = await exported(database)
    assert (device.state, device.key, device.product, device.name) == (State.ALLOCATED, UID, KEY, "n")
    async with database.read() as tx:
        assert (await locate(tx, List.MODULES, found.account_id, 1)).total == 2


async def test_what_is_stated_is_changed_and_nothing_else(database: Database) -> None:
    await make_account(database)
    await put(database, spec(device_serial="SN1", imei=IMEI, name="n"))
    before = await module(database)
    assert await put(database, spec(secret=None)) == [UNCHANGED], "what is not stated stays as it is"
    assert await put(database, spec(secret="ff" * 32)) == [UPDATED]
    assert await put(database, spec(secret=None, disabled=True)) == [UPDATED]
    assert await put(database, spec(secret=None, name="m")) == [UPDATED]
    assert await put(database, spec(secret=None, device_serial="SN2")) == [UPDATED]
    assert await put(database, spec(secret=None, imei="111111111111111")) == [UPDATED]
    after = await module(database)
    assert (after.id, after.secret, after.disabled) == (before.id, "ff" * 32, True)
    assert (after.production_serial, after.device_serial, after.imei) == ("SN2", "SN2", "111111111111111")
    assert (await exported(database)).name == "m"
    async with database.read() as tx:
        happened = [row["kind"] for row in await tx.db.fetch("SELECT kind FROM event ORDER BY id")]
    assert happened == ["account.created", "device.registered", "device.disabled"]


async def test_what_a_module_has_told_by_itself_stays(database: Database) -> None:
    await make_account(database)
    await put(database, spec(), spec(OTHER_UID))
    async with database.begin() as tx:
        for uid, imei in ((UID, IMEI), (OTHER_UID, None)):
            found = await modules.by_uid(tx, uid)
            assert found is not None
            await modules.update(tx, found.id, {"bootstrapped_at": NOW, "device_serial": "SEALED", "imei": imei})
    assert not (await exported(database)).device_serial, "what it has sealed would become the production log's"
    assert await put(database, spec(imei="111111111111111")) == [UNCHANGED]
    assert await put(database, spec(OTHER_UID, imei="111111111111111", device_serial="SN1")) == [UPDATED]
    told, other = await module(database), await module(database, OTHER_UID)
    assert (told.imei, told.device_serial, told.production_serial) == (IMEI, "SEALED", None)
    assert (other.imei, other.device_serial, other.production_serial) == ("111111111111111", "SEALED", "SN1")
    assert (await exported(database, OTHER_UID)).device_serial == "SN1"


async def test_a_module_belongs_to_one_account(database: Database) -> None:
    await make_account(database)
    await make_account(database, OTHER_KEY)
    assert await put(database, spec()) == [CREATED]
    taken = "device is taken by another one"
    assert await put(database, spec(product=OTHER_KEY, secret="ff" * 32), spec(OTHER_UID)) == [taken, CREATED]
    assert (await module(database)).secret == ROOT_SECRET.hex()
    assert await put(database, spec(THIRD_UID), spec(THIRD_UID, product=OTHER_KEY)) == [CREATED, taken]


async def test_the_same_module_twice(database: Database) -> None:
    await make_account(database)
    rows = [spec(), spec(), spec(name="n"), spec(name="n")]
    assert await put(database, *rows) == [CREATED, UNCHANGED, UPDATED, UNCHANGED]


async def test_modules_that_headers_cannot_tell_apart_may_both_be_here(database: Database) -> None:
    """They are refused when the second one bootstraps."""
    await make_account(database)
    assert await put(database, spec("0002000089280087"), spec("0003000089280087")) == [CREATED, CREATED]


async def test_importers_at_the_same_time(database: Database) -> None:
    await make_account(database)
    specs = [spec(f"{number:016x}", device_serial="SHARED") for number in range(20)]
    orders = (specs, specs[::-1], specs)

    results = await asyncio.gather(*(put(database, *order) for order in orders))
    assert sorted(map(set, results), key=str) == [{CREATED}, {UNCHANGED}, {UNCHANGED}], "one waits for the other"
    assert len(await suspicions(database)) == 20


# --- what else knows of modules ---


async def test_modules_on_the_whitelist_are_whitelisted(database: Database) -> None:
    account, other = await make_account(database), await make_account(database, OTHER_KEY)
    async with database.begin() as tx:
        await whitelist.add(tx, account.id, Kind.UID, [UID], now=NOW)
        await whitelist.add(tx, account.id, Kind.IMEI, [IMEI], now=NOW)
        await whitelist.add(tx, other.id, Kind.UID, [THIRD_UID], now=NOW)
    await put(database, spec(), spec(OTHER_UID), spec(THIRD_UID))

    async def listed() -> list[bool]:
        return [(await module(database, uid)).whitelisted for uid in (UID, OTHER_UID, THIRD_UID)]

    assert await listed() == [True, False, False]
    await put(database, spec(OTHER_UID, imei=IMEI))
    assert await listed() == [True, True, False]
    await put(database, spec(OTHER_UID, imei="111111111111111"))
    assert await listed() == [True, False, False]
    async with database.read() as tx:
        assert (await locate(tx, List.WHITELISTED, account.id, 1)).total == 1


async def test_a_production_serial_number_that_several_have_is_suspicious(database: Database) -> None:
    reason = "DUPLICATED_DEV_SERIAL_NUM_PROD_LOG"
    await make_account(database)
    await make_account(database, OTHER_KEY)
    await put(database, spec(device_serial="SN1"), spec(OTHER_UID, device_serial="SN2"))
    await put(database, spec(THIRD_UID, product=OTHER_KEY, device_serial="SN1"))
    assert await suspicions(database) == set(), "another account's are none of its business"
    await put(database, spec(OTHER_UID, device_serial="SN1"))
    assert await suspicions(database) == {(UID, reason, "SN1"), (OTHER_UID, reason, "SN1")}
    fourth, fifth = "0002000089280090", "0002000089280091"
    await put(database, spec(fourth, device_serial="SN9"), spec(fifth, device_serial="SN9"))
    assert {(fourth, reason, "SN9"), (fifth, reason, "SN9")} < await suspicions(database), "in one go"


# --- the import ---


def rows_of(count: int) -> list[str]:
    account = {"type": "account", "protocol": PROTOCOL, "apiKey": KEY, "apiSecret": SECRET, "strictE2E": True}
    profile = {
        "type": "profile", "protocol": PROTOCOL, "apiKey": KEY, "deviceProfileUID": PROFILE, "profileName": "p",
        "whitelistCheck": False,
    }  # fmt: skip
    devices = [
        {
            "type": "device", "protocol": PROTOCOL, "apiKey": KEY, "rotPublicUID": f"{number:x}",
            "rootSecret": ROOT_SECRET.hex(), "deviceSerialNumber": f"SN{number}",
        }
        for number in range(count)
    ]  # fmt: skip
    return [json.dumps(row) for row in (account, profile, *devices)]


async def test_rows_are_imported_and_repeated(database: Database) -> None:
    found: list[Result] = []

    async def run(lines: list[str], **options: Any) -> tuple[int, int, int]:
        found.clear()
        summary = await import_rows(database, lines, {PROTOCOL: read_row}, on_result=found.append, **options)
        assert not summary.failed, summary.first_failure
        return summary.created, summary.updated, summary.unchanged

    lines = rows_of(1_200)
    assert await run(lines, dry_run=True) == (1_202, 0, 0)
    async with database.read() as tx:
        assert await store.find(tx, PROTOCOL, KEY) is None, "it was a rehearsal"
    assert await run(lines) == (1_202, 0, 0)
    assert [(each.kind, each.name) for each in found[:3]] == [
        ("account", KEY), ("profile", PROFILE), ("device", f"{KEY}/0000000000000000"),
    ]  # fmt: skip
    assert await run(lines) == (0, 0, 1_202)


async def test_one_command_line_row_at_a_time(database: Database) -> None:
    """`put_devices` knows whose kind of device it is about."""
    await make_account(database)
    async with database.begin() as tx:
        (result,) = await put_devices(tx, [spec()], now=NOW)
    assert not isinstance(result, Refusal)
    assert result[0] is CREATED
    assert (await module(database)).uid == UID


async def test_a_module_that_is_deleted_meanwhile(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await make_account(database)
    await put(database, spec(), spec(OTHER_UID))
    real = devices.lock_all

    async def lock_all(tx: Tx, ids: Sequence[int]) -> list[Device]:
        async with database.begin() as other:
            await registry.delete_device(other, await registry.device(other, PROTOCOL, KEY, UID))
        return await real(tx, ids)

    monkeypatch.setattr(devices, "lock_all", lock_all)
    rows = [spec(name="n"), spec(OTHER_UID, name="n")]
    assert await put(database, *rows) == [f"there is no device {UID}", UPDATED]
