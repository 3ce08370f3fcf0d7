"""The writes that logins need, in groups: sessions of dynamic activation, first logins, devices created on the way."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from provisioning.core import generate
from provisioning.model.credential import Credential
from provisioning.model.events import DeviceActivated, DeviceRegistered, SecretIssued
from provisioning.model.refusal import Reason, Refusal
from provisioning.store import logins
from provisioning.store.batch import Batcher
from provisioning.store.database import Database, Tx

LONGEST_CLOSE: Final = 5.0


async def issue(tx: Tx, credentials: Sequence[Credential], limit: int) -> list[bool]:
    """Count one more activation session for each credential; False: it may have none (`limit` reached, or activated).

    A device may be among them more than once: then so many sessions are counted.
    """
    left = await logins.issue(tx, Counter(c.device.id for c in credentials if c.device), limit)
    granted: list[bool] = []
    for credential in credentials:
        device = credential.device
        granted.append(device is not None and left.get(device.id, 0) > 0)
        if device is not None and granted[-1]:
            left[device.id] -= 1
            tx.emit(SecretIssued(device_id=device.id, identity=credential.identity))
    return granted


async def activate(tx: Tx, credentials: Sequence[Credential]) -> list[bool]:
    """Mark the first login of each device; True: it was the first."""
    by_id = {c.device.id: c for c in credentials if c.device}
    first = await logins.activate(tx, by_id.keys())
    tx.emit(*(DeviceActivated(device_id=i, identity=by_id[i].identity) for i in sorted(first)))
    return [c.device is not None and c.device.id in first for c in credentials]


async def create(tx: Tx, credential: Credential) -> None:
    """Add the device that a proven product speaks for."""
    assert credential.product is not None
    device_id = await logins.create(
        tx, credential.identity, credential.product.id, generate.secret(), generate.asset_id()
    )
    if device_id is not None:
        tx.emit(DeviceRegistered(device_id=device_id, identity=credential.identity))


class LoginWrites:
    """Group commit of what logins write. Each method returns when its part is durable.

    `limit`: how many activation sessions a device may have before its first login.

    Raises (all methods):
        Refusal: UNAVAILABLE when the database is away.
    """

    def __init__(self, database: Database, *, limit: int) -> None:
        self._database = database
        self._limit = limit
        self._issues = Batcher(self._issue_all)
        self._activations = Batcher(self._activate_all)

    @property
    def depth(self) -> int:
        """How many writes wait."""
        return self._issues.depth + self._activations.depth

    async def issue(self, credential: Credential) -> None:
        """Raises: Refusal ACTIVATION_SPENT."""
        if not await self._issues.submit(credential):
            raise Refusal(Reason.ACTIVATION_SPENT)

    async def activate(self, credential: Credential) -> None:
        await self._activations.submit(credential)

    async def create(self, credential: Credential) -> None:
        async with self._database.begin() as tx:
            await create(tx, credential)

    async def close_activation(self, device_id: int) -> None:
        async with self._database.begin() as tx:
            await logins.close_activation(tx, device_id)

    async def _issue_all(self, credentials: Sequence[Credential]) -> list[bool]:
        async with self._database.begin() as tx:
            return await issue(tx, credentials, self._limit)

    async def _activate_all(self, credentials: Sequence[Credential]) -> list[bool]:
        async with self._database.begin() as tx:
            return await activate(tx, credentials)

    async def close(self) -> None:
        await self._issues.close(LONGEST_CLOSE)
        await self._activations.close(LONGEST_CLOSE)
