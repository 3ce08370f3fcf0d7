"""Watches for modules that cannot all be genuine: they have a serial number that only one of them should have."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum

from provisioning.store import suspicions
from provisioning.store.database import Tx


class Doubt(StrEnum):
    """What is doubtful about a module.

    A fourth reason, DUPLICATED_SCL_SERIAL_NUM_PROD_LOG, never comes up: what we import has no such number.
    """

    DEVICE_SERIAL = "DUPLICATED_DEV_SERIAL_NUM_SEALING"
    """Several have bootstrapped with one serial number of the device that they are built into."""
    SERIAL = "DUPLICATED_SCL_SERIAL_NUM_SEALED_INFO"
    """Several have bootstrapped with one serial number of their own."""
    PRODUCTION_SERIAL = "DUPLICATED_DEV_SERIAL_NUM_PROD_LOG"
    """The production log has one serial number for several."""


async def suspect(tx: Tx, account_id: int, device_id: int, reason: str, value: str | None, *, now: datetime) -> None:
    """Mark the module and the others of its account, when another one has this value too. `reason`: a `Doubt`.

    The module's own row must have been written before.
    """
    await suspect_all(tx, reason, [(account_id, device_id, value)], now=now)


async def suspect_all(tx: Tx, reason: str, modules: Iterable[tuple[int, int, str | None]], *, now: datetime) -> None:
    """As `suspect`, for many: account id, device id and value of each. No value, no doubt."""
    stated = [(account_id, device_id, value) for account_id, device_id, value in modules if value]
    await suspicions.add(tx, Doubt(reason), stated, now)
