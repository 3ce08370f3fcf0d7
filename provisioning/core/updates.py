"""Updates of the devices' software: published, offered within limits, reported on, stopped.

Source: the vendors' check-in calls; where several rules are possible, docs/updates.md says which one holds and why.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto
from hashlib import sha256
from pathlib import PurePath
from typing import Final

from provisioning import log
from provisioning.core import policy
from provisioning.core import version as versions
from provisioning.model.events import UpdateStopped
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.update import Offer, Update
from provisioning.store import updates
from provisioning.store.database import Tx

__all__ = ["Offer", "StopRule", "Update", "bucket", "delete", "find", "offer", "publish", "report", "stop"]

NAME: Final = re.compile(r"upd([1-9][0-9]{0,17})")
UNFIT: Final = re.compile(r"[^A-Za-z0-9._-]+")
LONGEST_FILE: Final = 100


@dataclass(frozen=True, slots=True)
class StopRule:
    """When an update stops itself: of at least `after` devices that reported, more than `share` percent failed."""

    after: int = 10
    """0: never."""
    share: int = 50

    def is_met(self, succeeded: int, failed: int) -> bool:
        reports = succeeded + failed
        return 0 < self.after <= reports and failed * 100 > self.share * reports


def bucket(update_id: str, device: str) -> int:
    """0 to 99: the device is among `percentage` percent of an update when this is below it. Never changes."""
    return int.from_bytes(sha256(f"{update_id}:{device}".encode()).digest(), "big") % 100


# --- what devices do -------------------------------------------------------------------------------------------------


async def offer(
    tx: Tx,
    *,
    protocol: str,
    product: str,
    device: str,
    fields: Mapping[str, object],
    test: bool,
    version: str | None,
    now: datetime,
) -> Offer | None:
    """What the device should update to: the newest version above its own whose policy holds and whose limits let it in.

    `fields` is all that the device submitted; `version` what it runs (None or empty: older than everything; no version:
    nothing is offered, for nobody knows what is above it). Where a percentage or the number of devices leaves a device
    out, the next older update is looked at; where it only has to wait for its turn, it waits.
    """
    candidates = await updates.live(tx, protocol, product, device, test=test)
    runs = versions.read(version)
    if version and runs is None:
        if candidates:
            log.get().info("update.version_unreadable", protocol=protocol, product=product, device=device,
                           version=version)  # fmt: skip
        return None
    for candidate in sorted(candidates, key=_newest_first, reverse=True):
        update = candidate.update
        if runs is not None and _version(update).compare(runs) <= 0:
            return None
        if not policy.is_true(policy.read(update.policy), fields):
            continue
        turn = _Turn.OFFERED if candidate.was_offered else await _turn(tx, candidate, device, now)
        if turn is not _Turn.LEFT_OUT:
            return _offer(update) if turn is _Turn.OFFERED else None
    return None


class _Turn(Enum):
    OFFERED = auto()
    WAITS = auto()
    LEFT_OUT = auto()


async def _turn(tx: Tx, candidate: updates.Candidate, device: str, now: datetime) -> _Turn:
    """Offer the update to the device if its limits allow, and count it."""
    update = candidate.update
    if bucket(update.name, device) >= update.percentage or _is_full(update):
        return _Turn.LEFT_OUT
    slot = await updates.slot(tx, update.id, candidate.device_id, now)
    if slot.was_offered:  # to another request of the same device, a moment ago
        return _Turn.OFFERED
    if slot.full or not slot.live:
        return _Turn.LEFT_OUT
    if slot.waiting:
        return _Turn.WAITS
    await updates.give(tx, update.id, candidate.device_id, now)
    return _Turn.OFFERED


def _newest_first(candidate: updates.Candidate) -> tuple[versions.Version, int]:
    return _version(candidate.update), candidate.update.id


def _version(update: Update) -> versions.Version:
    found = versions.read(update.version)
    assert found is not None, update.version  # `publish` has read it
    return found


def _is_full(update: Update) -> bool:
    return update.max_devices is not None and update.offered >= update.max_devices


def _offer(update: Update) -> Offer:
    return Offer(
        checksum=update.checksum, version=update.version, update_id=update.name, file=update.file, size=update.size
    )


async def report(
    tx: Tx,
    *,
    protocol: str,
    product: str,
    device: str,
    update_id: str,
    success: bool,
    now: datetime,
    rule: StopRule = StopRule(),
) -> None:
    """Count how the update went on the device; its last report counts. The update stops itself when `rule` is met.

    Raises:
        Refusal: UNKNOWN, when the device's product has no such update, or the device was never offered it.
    """
    number = _number(update_id)
    update = await updates.lock(tx, number) if number is not None else None
    if update is None or (update.protocol, update.product) != (protocol, product):
        raise Refusal(Reason.UNKNOWN, update=update_id[:LONGEST_FILE])
    counted = await updates.report(tx, update.id, device, success=success, now=now)
    if counted is None:
        raise Refusal(Reason.UNKNOWN, update=update_id[:LONGEST_FILE])
    if success or update.stopped_at is not None or not rule.is_met(counted.succeeded, counted.failed):
        return
    why = f"{counted.failed} of {counted.succeeded + counted.failed} devices reported failure"
    await updates.stop(tx, update.id, why, now)
    identity = Identity(protocol, product, device)
    tx.emit(UpdateStopped(device_id=counted.device_id, identity=identity, update=update.name, why=why))


# --- what administrators do ------------------------------------------------------------------------------------------


def file_name(path: str) -> str:
    """A name for links: the file's own, with what a URL or a device might trip over replaced by `_`."""
    name = UNFIT.sub("_", PurePath(path).name).lstrip(".-_")
    return name[-LONGEST_FILE:].lstrip(".-_") or "image"


def check(new: Update) -> Update:
    """The update with its version in plain SemVer.

    Raises:
        Refusal: MALFORMED, when version, policy or a limit is not of its form.
    """
    found = versions.read(new.version)
    if found is None:
        raise _malformed("version", "must be a version like 1.4.0 or 1.4.0-rc.1 (SemVer)")
    policy.read(new.policy)
    if not 1 <= new.percentage <= 100:  # noqa: PLR2004
        raise _malformed("percentage", "must be 1 to 100")
    for name, value in (("max", new.max_devices), ("rate", new.rate)):
        if value is not None and not 0 < value < 2**31:
            raise _malformed(name, f"must be 1 to {2**31 - 1}")
    return replace(new, version=str(found))


def _malformed(name: str, rule: str) -> Refusal:
    return Refusal(Reason.MALFORMED, field=name, rule=rule)


async def publish(tx: Tx, new: Update) -> Update:
    """Offer a new update from now on. Its image must be in the store, held by `updates.hold_image`.

    Raises:
        Refusal: MALFORMED, as `check`; UNKNOWN, when there is no such product.
    """
    if added := await updates.add(tx, check(new)):
        return added
    raise Refusal(Reason.UNKNOWN, product=new.product)


async def find(tx: Tx, update_id: str) -> Update:
    """Raises: Refusal UNKNOWN."""
    number = _number(update_id)
    if number is not None and (found := await updates.find(tx, number)):
        return found
    raise Refusal(Reason.UNKNOWN, update=update_id)


def _number(update_id: str) -> int | None:
    found = NAME.fullmatch(update_id)
    return int(found[1]) if found else None


async def stop(tx: Tx, update_id: str, now: datetime) -> Update:
    """Offer it to nobody any more. What links have been given remain good until they expire.

    Raises:
        Refusal: UNKNOWN; ILLEGAL_TRANSITION, when it is stopped already.
    """
    found = await find(tx, update_id)
    why = "by an administrator"
    if not await updates.stop(tx, found.id, why, now):
        raise Refusal(Reason.ILLEGAL_TRANSITION, state="stopped", step="stop")
    return replace(found, stopped_at=now, why_stopped=why)


async def delete(tx: Tx, update_id: str) -> Update:
    """Delete the update with its counts; its image may be in no further use, see `updates.hold_image`.

    Raises:
        Refusal: UNKNOWN.
    """
    found = await find(tx, update_id)
    if not await updates.delete(tx, found.id):
        raise Refusal(Reason.UNKNOWN, update=update_id)
    return found
