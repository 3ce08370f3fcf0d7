"""Enrolments, committed in groups: claims that arrive together are judged and written together.

What `enrol` decides for one claimant is decided here for many, with one statement for each step instead of one for each
claimant. Whatever is not the usual case, a device that waits for its product or a serial number that somebody else
registers at the same moment, goes to `enrol` itself, one at a time.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from provisioning.core.enrol import NOBODY, Claim, check, enrol, outfit
from provisioning.model.events import DeviceRegistered
from provisioning.model.lifecycle import State
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Group
from provisioning.store import devices, groups
from provisioning.store.batch import Batcher
from provisioning.store.database import Database, Tx

LONGEST_CLOSE: Final = 5.0

Name = tuple[int, str]
"""Id of a group, and a serial number in it."""


async def enrol_all(tx: Tx, claims: Sequence[Claim]) -> list[Device | Refusal]:
    """As `enrol`, for each of the claims; a refusal of one hinders no other. One protocol at a time.

    Raises:
        Refusal: DUPLICATE from the transaction, when a key that was made up is taken: try again one by one.
    """
    found = await groups.find_all(tx, claims[0].protocol, sorted({claim.group for claim in claims}))
    results: dict[int, Device | Refusal] = {}
    proven: dict[Name, list[int]] = defaultdict(list)
    for at, claim in enumerate(claims):
        group = found.get(claim.group)
        if group is None:
            claim.proven_by(NOBODY)
            results[at] = Refusal(Reason.UNKNOWN, group=claim.group)
            continue
        try:
            check(claim, group)
        except Refusal as refusal:
            results[at] = refusal
            continue
        proven[group.id, claim.serial].append(at)
    enrolled = await _enrol(tx, {name: claims[places[0]] for name, places in proven.items()}, found)
    for name, places in proven.items():
        for at in places:
            results[at] = enrolled[name]
    return [results[at] for at in range(len(claims))]


async def _enrol(tx: Tx, claims: Mapping[Name, Claim], found: Mapping[str, Group]) -> dict[Name, Device | Refusal]:
    """The devices of proven claimants."""
    enrolled: dict[Name, Device | Refusal] = {}
    fresh: list[tuple[Group, Device]] = []
    for group in found.values():
        serials = [serial for group_id, serial in claims if group_id == group.id]
        known = await devices.by_serials(tx, group, serials) if serials else {}
        for serial in serials:
            device = known.get(serial)
            if device is None and group.auto_register:
                fresh.append((group, _new(group, claims[group.id, serial])))
            elif device is None:
                enrolled[group.id, serial] = Refusal(Reason.UNKNOWN, serial=serial)
            elif device.state is not State.REGISTERED or not (group.auto_activation and group.product_id):
                enrolled[group.id, serial] = device
    added = await devices.register_many(tx, fresh) if fresh else {}
    for name, device in added.items():
        enrolled[name] = device
        tx.emit(DeviceRegistered(device_id=device.id, identity=device.identity, serial=device.serial))
    for name, claim in claims.items():
        if name not in enrolled:
            try:
                enrolled[name] = await enrol(tx, claim)
            except Refusal as refusal:
                enrolled[name] = refusal
    return enrolled


def _new(group: Group, claim: Claim) -> Device:
    described = claim.description
    new = Device(
        protocol=group.protocol, state=State.REGISTERED, group=group.key, serial=claim.serial, name=described.name,
        name_i18n=described.name_i18n, timezone=described.timezone,
    )  # fmt: skip
    if not (group.auto_activation and group.product_id):
        return new
    return replace(outfit(new, group.product), certificate_login=group.certificate_login)


class Enrolments:
    """Enrols claimants in batches, each in a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # One batch at a time: the next one grows meanwhile.
        self._batches: Batcher[Claim, Device] = Batcher(self._run, concurrency=1)

    @property
    def depth(self) -> int:
        """How many wait."""
        return self._batches.depth

    async def enrol(self, claim: Claim) -> Device:
        """The device, when it is durable. Raises: Refusal, as `enrol.enrol`; UNAVAILABLE."""
        return await self._batches.submit(claim)

    async def _run(self, claims: Sequence[Claim]) -> list[Device | Exception]:
        try:
            async with self._database.begin() as tx:
                return list(await enrol_all(tx, claims))
        except Refusal as refusal:
            if refusal.reason is not Reason.DUPLICATE:
                raise
        results: list[Device | Exception] = []
        for claim in claims:
            try:
                async with self._database.begin() as tx:
                    results.append(await enrol(tx, claim))
            except Refusal as refusal:
                results.append(refusal)
        return results

    async def close(self) -> None:
        await self._batches.close(LONGEST_CLOSE)
