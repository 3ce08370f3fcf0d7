"""Registration by name: whoever proves the product's secret gets a device of its own, and that device's secret.

Many are served by one transaction (group commit): two queries and an insert for all of them, and everybody is answered
after the commit. Whether a device may have a secret is decided by `enrol.may_have_secret`: before, to refuse cheaply,
and again in the transaction, under a lock on the device.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from provisioning.core.enrol import Again, Grant, may_have_secret
from provisioning.model.events import DeviceRegistered, SecretIssued
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal
from provisioning.store import registrations
from provisioning.store.batch import Batcher
from provisioning.store.database import Database, Tx
from provisioning.store.registrations import Standing
from provisioning.store.sealing import SealError

T = TypeVar("T")

TRIES: Final = 4
LONGEST_CLOSE: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A claimant that has proven its product's secret."""

    standing: Standing
    again: Again
    secret: str = field(repr=False)
    """What its secret is to be, should it get a new one."""
    is_told: bool = True
    """It is told its secret; False: it gets a certificate, and the secret is nobody's."""

    @property
    def identity(self) -> Identity:
        return self.standing.credential.identity


@dataclass(frozen=True, slots=True)
class Registered:
    device_id: int
    secret: str = field(repr=False)


def check(request: Request) -> Grant:
    """What the registry, as it was read, has for the claimant.

    Raises:
        Refusal: as `enrol.may_have_secret`; LIMIT_REACHED.
    """
    credential = request.standing.credential
    if credential.product is None:  # deleted since the proof
        raise Refusal(Reason.NOT_PROVEN, known=False)
    grant = may_have_secret(credential.product, credential.device, request.again)
    if grant is Grant.CREATE and request.standing.is_full:
        raise Refusal(Reason.LIMIT_REACHED)
    return grant


async def register(tx: Tx, requests: Sequence[Request]) -> list[Registered | Refusal | None]:
    """Give each claimant its device and secret; None: what was read of it is no longer so, read it again.

    Requests for one device at the same time get the same. Devices first, then the count of their product, so that
    nobody waits for another in a circle.
    """
    held = await registrations.hold(tx, {_product_id(request) for request in requests})
    first: dict[Identity, Request] = {}
    for request in requests:
        if _product_id(request) in held:
            first.setdefault(request.identity, request)
    fresh = {name: one for name, one in first.items() if one.standing.credential.device is None}
    created = await _create(tx, fresh)
    outcomes = await _issue_again(tx, [one for name, one in first.items() if name not in fresh])
    outcomes |= await _within_limits(tx, fresh, created)
    for name, outcome in outcomes.items():
        if name in fresh and isinstance(outcome, Registered):
            tx.emit(DeviceRegistered(device_id=outcome.device_id, identity=name))
        if first[name].is_told and isinstance(outcome, Registered):
            tx.emit(SecretIssued(device_id=outcome.device_id, identity=name))
    return [outcomes.get(request.identity) for request in requests]


Outcomes = dict[Identity, Registered | Refusal]


async def _create(tx: Tx, fresh: Mapping[Identity, Request]) -> dict[Identity, int]:
    rows = [(name, _product_id(request), request.secret) for name, request in fresh.items()]
    return await registrations.create(tx, rows) if rows else {}


def _product_id(request: Request) -> int:
    product = request.standing.credential.product
    assert product is not None, "`check` has seen it"
    return product.id


async def _issue_again(tx: Tx, known: Sequence[Request]) -> Outcomes:
    """What devices get that are there, judged as they stand under a lock."""
    outcomes: Outcomes = {}
    by_id = {device.id: one for one in known if (device := one.standing.credential.device) is not None}
    rotated: dict[int, tuple[Identity, str]] = {}
    for device_id, credential in (await registrations.lock(tx, by_id.keys()) if by_id else {}).items():
        request = by_id[device_id]
        if isinstance(credential, SealError):
            outcomes[request.identity] = Refusal(Reason.INTERNAL, error=str(credential))
            continue
        try:
            grant = check(replace(request, standing=Standing(credential, is_full=False)))
        except Refusal as refusal:
            outcomes[request.identity] = refusal
            continue
        assert credential.device is not None
        secret = credential.device.secret
        if grant is Grant.NEW_SECRET:
            secret = request.secret
            rotated[device_id] = request.identity, secret
        outcomes[request.identity] = Registered(device_id, secret)
    if rotated:
        await registrations.rotate(tx, rotated)
    return outcomes


async def _within_limits(tx: Tx, fresh: Mapping[Identity, Request], created: Mapping[Identity, int]) -> Outcomes:
    """Those that came last are taken back, as many as are above the limit of their product; nobody has seen them."""
    if not created:
        return {}
    outcomes: Outcomes = {}
    products = {name: _product_id(fresh[name]) for name in created}
    above = await registrations.count(tx, dict(sorted(Counter(products.values()).items())))
    for name in reversed(list(fresh)):
        if name not in created:
            continue
        if above.get(products[name], 0) > 0:
            above[products[name]] -= 1
            outcomes[name] = Refusal(Reason.LIMIT_REACHED)
        else:
            outcomes[name] = Registered(created[name], fresh[name].secret)
    if excess := [created[name] for name, outcome in outcomes.items() if isinstance(outcome, Refusal)]:
        await registrations.take_back(tx, excess)
    return outcomes


class _Stale(Exception):  # noqa: N818 - it undoes a transaction, and goes no further
    pass


def _unsettled() -> Refusal:
    return Refusal(Reason.UNAVAILABLE, error="the device changes faster than it can be read")


class Registrations:
    """Registrations, committed in groups.

    Raises (all methods):
        Refusal: UNAVAILABLE when the database is away, INTERNAL when a secret does not open.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        # One batch at a time: the next one grows meanwhile, and of one product it would wait for the same count anyway.
        self._look_ups: Batcher[Identity, Standing] = Batcher(self._look_up_all, concurrency=1)
        self._writes: Batcher[Request, Registered | None] = Batcher(self._register_all, concurrency=1)

    @property
    def depth(self) -> int:
        """How many wait."""
        return self._look_ups.depth + self._writes.depth

    async def look_up(self, identity: Identity) -> Standing:
        """What the registry knows of somebody who would register. From the database: a cache may be a moment behind."""
        return await self._look_ups.submit(identity)

    async def register(self, request: Request) -> Registered:
        """The device and its secret, when they are durable.

        Raises:
            Refusal: as `check`.
        """
        for _ in range(TRIES):
            check(request)
            if registered := await self._writes.submit(request):
                return registered
            request = replace(request, standing=await self.look_up(request.identity))
        raise _unsettled()

    async def alone(self, request: Request, work: Callable[[Tx, Request], Awaitable[T | None]]) -> T:
        """As `register`, in a transaction of its own, in which `work` calls the verb and does what else is due.

        `work` returns None when what was read is no longer so: it is undone, and done again with what is so now.

        Raises:
            Refusal: what `work` raises.
        """
        for _ in range(TRIES):
            with suppress(_Stale):
                async with self._database.begin() as tx:
                    done = await work(tx, request)
                    if done is None:
                        raise _Stale
                return done
            request = replace(request, standing=await self.look_up(request.identity))
        raise _unsettled()

    async def _look_up_all(self, identities: Sequence[Identity]) -> list[Standing | Exception]:
        async with self._database.read() as tx:
            found = await registrations.look_up(tx, identities)
        return [Refusal(Reason.INTERNAL, error=str(one)) if isinstance(one, SealError) else one for one in found]

    async def _register_all(self, requests: Sequence[Request]) -> list[Registered | Exception | None]:
        async with self._database.begin() as tx:
            return list(await register(tx, requests))

    async def close(self) -> None:
        await self._look_ups.close(LONGEST_CLOSE)
        await self._writes.close(LONGEST_CLOSE)
