"""What rows state of accounts beyond what they have as products, groups and devices: read and written in bulk."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from provisioning.model.account import AccountProduct, ModuleDevice, ProfileGroup
from provisioning.model.registry import Device, Group, Product
from provisioning.store.database import Tx

ACCOUNTS: Final = """
    SELECT product_id AS id, secret_hash, strict_e2e, certificates FROM account WHERE product_id = ANY($1)
"""
PROFILES: Final = "SELECT group_id, whitelist_check FROM device_profile WHERE group_id = ANY($1)"
MODULES: Final = """
    SELECT device_id AS id, coalesce(production_serial, '') AS device_serial, coalesce(imei, '') AS imei
    FROM module WHERE device_id = ANY($1)
"""
ADD_PROFILE: Final = "INSERT INTO device_profile (group_id, account_id, whitelist_check) VALUES ($1, $2, $3)"
SET_WHITELIST_CHECK: Final = "UPDATE device_profile SET whitelist_check = $2 WHERE group_id = $1"
SHARED_SERIALS: Final = """
    SELECT DISTINCT new.account_id, new.value FROM unnest($1::bigint[], $2::bigint[], $3::text[])
           AS new (account_id, device_id, value)
    WHERE EXISTS (
        SELECT FROM module m WHERE m.account_id = new.account_id AND m.production_serial = new.value
               AND m.device_id <> new.device_id
    )
"""


@dataclass(frozen=True, slots=True)
class Produced:
    """A module and its serial number in the production log."""

    account_id: int
    device_id: int
    serial: str


def _with(kind: type[Any], thing: Product | Group | Device, **more: object) -> Any:
    return kind(**{each.name: getattr(thing, each.name) for each in fields(thing)} | more)


async def with_accounts(tx: Tx, found: Sequence[Product]) -> list[Product]:
    """The same products; those that are accounts as `AccountProduct`."""
    known: dict[int, dict[str, Any]] = {}
    for row in await tx.db.fetch(ACCOUNTS, [each.id for each in found]):
        stated = dict(row)
        known[stated.pop("id")] = stated
    return [_with(AccountProduct, each, **known[each.id]) if each.id in known else each for each in found]


async def with_profiles(tx: Tx, found: Sequence[Group]) -> list[Group]:
    """The same groups; those that are device profiles as `ProfileGroup`."""
    checks = await whitelist_checks(tx, [each.id for each in found])
    return [_with(ProfileGroup, each, whitelist_check=checks[each.id]) if each.id in checks else each for each in found]


async def with_modules(tx: Tx, found: Sequence[Device]) -> list[Device]:
    """The same devices; those that are modules as `ModuleDevice`."""
    known = {row["id"]: row for row in await tx.db.fetch(MODULES, [each.id for each in found])}
    return [
        _with(ModuleDevice, each, device_serial=known[each.id]["device_serial"], imei=known[each.id]["imei"])
        if each.id in known else each for each in found
    ]  # fmt: skip


async def whitelist_checks(tx: Tx, group_ids: Sequence[int]) -> dict[int, bool]:
    """Which of the groups are device profiles, and whether they ask for the whitelist."""
    return {row["group_id"]: row["whitelist_check"] for row in await tx.db.fetch(PROFILES, group_ids)}


async def add_profile(tx: Tx, group: Group, account_id: int, *, whitelist_check: bool) -> None:
    """Make a device profile of the account of the group."""
    await tx.db.execute(ADD_PROFILE, group.id, account_id, whitelist_check)


async def set_whitelist_check(tx: Tx, group: Group, *, whitelist_check: bool) -> None:
    await tx.db.execute(SET_WHITELIST_CHECK, group.id, whitelist_check)


async def sharing_a_serial(tx: Tx, produced: Sequence[Produced]) -> list[Produced]:
    """Those of the modules whose serial number the production log has for another one of their account, too."""
    if not produced:
        return []
    columns = zip(*((each.account_id, each.device_id, each.serial) for each in produced), strict=True)
    shared = {(row["account_id"], row["value"]) for row in await tx.db.fetch(SHARED_SERIALS, *columns)}
    return [each for each in produced if (each.account_id, each.serial) in shared]
