"""Tokens of devices: issued once, kept as hashes, good until a newer one is used or the device is released."""

import secrets
from datetime import datetime, timedelta
from typing import Final

from provisioning.model.claim import TokenEnd
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device
from provisioning.store import devices, tokens
from provisioning.store.database import Tx

TOKEN_BYTES: Final = 32
MOST_UNUSED: Final = 8
"""Good tokens of one device that it has not shown; so many within PAUSE, and it has to wait."""
PAUSE: Final = timedelta(minutes=1)
FORGOTTEN: Final = timedelta(days=30)
"""After which a token that was replaced and never shown is not even known any more."""


async def issue(tx: Tx, device: Device, *, now: datetime) -> str:
    """A new token. Those that the device has stay good until it shows this one. The device's row must be locked."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    await tokens.add(tx, token, device.id, now)
    await tokens.trim(tx, device.id, MOST_UNUSED, now)
    await tokens.forget(tx, device.id, now - FORGOTTEN)
    return token


async def count(tx: Tx, device: Device, *, now: datetime) -> tokens.Live:
    return await tokens.live(tx, device.id, now - PAUSE)


async def recognise(tx: Tx, token: str, *, now: datetime) -> Device:
    """The device whose token this is. When it is shown for the first time, older ones end.

    Raises:
        Refusal: NOT_PROVEN. Its detail `known` is empty for a token that nobody has ever seen; else it is a `TokenEnd`:
            then it is certain that the token was good once, and why it no longer is.
    """
    known = await tokens.find(tx, token)
    if known is not None and known.end is None and known.used_at is None:
        assert known.device_id is not None
        await devices.hold(tx, known.device_id)  # the order of locks is the same for all: first the device
        known = await tokens.find(tx, token)
        if known is not None and known.end is None:
            await tokens.mark_used(tx, token, now)
    if known is None:
        raise Refusal(Reason.NOT_PROVEN, known="")
    if known.end is not None:
        raise Refusal(Reason.NOT_PROVEN, known=str(known.end))
    device = await devices.by_id(tx, known.device_id or 0)
    if device is None:  # deleted since the token was read
        raise Refusal(Reason.NOT_PROVEN, known=str(TokenEnd.DELETED))
    return device
