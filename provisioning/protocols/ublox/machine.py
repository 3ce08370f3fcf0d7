"""What modules do: bootstrap, beat. And what is told when one does not come any more. Contract: section 3.

Whoever locks rows here keeps to one order: the account's whitelist, the device, the module.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from provisioning.core import pki, watch
from provisioning.core.watch import Doubt
from provisioning.model.command import Command
from provisioning.model.events import DeviceActivated
from provisioning.model.identity import Identity
from provisioning.model.module import Module
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.ublox import issuing, notices, provisioning, refusals, wire
from provisioning.protocols.ublox import machine_wire as mw
from provisioning.protocols.ublox.machine_wire import Activity, Kind
from provisioning.protocols.ublox.notices import Event, Notification
from provisioning.store import commands, devices, keysets, machines, modules, profiles, usage, whitelist
from provisioning.store import notices as stored
from provisioning.store.database import Tx
from provisioning.store.machines import Known
from provisioning.store.profiles import Profile

NOBODYS_SECRET: Final = "00" * mw.KEY_BYTES
PATIENCE: Final = 2
"""Intervals after which a module that has not come counts as unreachable."""
MOST_AHEAD: Final = timedelta(days=1)
"""How far in our future a bootstrap may be signed: one from later years would make all honest ones look old."""
FACTS: Final = ("imei", "device_serial", "type_number", "rot_version", "version", "serial")
"""What a bootstrap may seal besides the device profile."""
COLUMNS: Final = (
    *FACTS, "profile_id", "sealed_at", "whitelisted", "blacklisted", "bootstrapped_at", "signed_at", "bootstrap_mac",
    "counter", "last_seen", "due_at", "desired", "current", "desired_ca", "current_ca",
)  # fmt: skip
"""What is written here of a module."""
COUNTED: Final = frozenset(wire.AUTHORIZATIONS) - {wire.EVALUATION}
DUPLICATE_BOOTSTRAP: Final = "DUPLICATE_BOOTSTRAP"
COUNTER_REGRESSION: Final = "COUNTER_REGRESSION"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A module's call, proven."""

    tx: Tx
    known: Known
    now: datetime
    source: str
    """IP address that it came from."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of it. `refusal`: it is refused all the same; what was noted about it stays."""

    module: Module
    commands: Sequence[Command] = ()
    refusal: Refusal | None = None


async def prove(tx: Tx, asked: mw.Proven, body: Mapping[str, Any]) -> Known:
    """The module whose root secret made the body.

    Raises:
        Refusal: NOT_PROVEN: unknown or wrong, in the same time; DISABLED, which reads the same.
    """
    known = await machines.find(tx, asked.uid)
    secret = known.secret if known else ""
    if not mw.proves(body, asked.uid, secret or NOBODYS_SECRET, asked.mac) or known is None or not secret:
        raise Refusal(Reason.NOT_PROVEN)
    if known.disabled:
        raise Refusal(Reason.DISABLED)
    return known


async def _lock(visit: Visit) -> Module:
    """The module as it is now, with its root secret; nobody else changes it until the transaction ends.

    Raises:
        Refusal: NOT_PROVEN, when it was deleted just now; DISABLED.
    """
    await devices.keep(visit.tx, visit.known.id)
    found = await modules.lock(visit.tx, [visit.known.id])
    if not found:
        raise Refusal(Reason.NOT_PROVEN)
    if found[0].disabled:
        raise Refusal(Reason.DISABLED)
    return replace(found[0], secret=visit.known.secret)


async def _keep(visit: Visit, before: Module, after: Module) -> None:
    """Write what has changed. Raises: UniqueViolationError, for a twin."""
    changes = {name: getattr(after, name) for name in COLUMNS if getattr(after, name) != getattr(before, name)}
    await modules.update(visit.tx, after.id, changes)


# --- bootstrap -------------------------------------------------------------------------------------------------------


async def bootstrap(visit: Visit, asked: mw.Bootstrap) -> Heard:
    """A module tells what it is, for the first time as a rule.

    What is sealed stays. A device profile may be sealed later; what a bootstrap before has left out may come with it.
    A bootstrap that repeats the last one is answered as that one was; any other is a sign that there are two of it.

    Raises:
        Refusal: MALFORMED with field `DeviceProfileUID`, of which the account has none, or `Timestamp`, which is too
            far ahead; DUPLICATE from the transaction: headers of messages could not tell the module from another of
            the account. In `Heard`: MALFORMED with field `Timestamp`, which is before the last bootstrap's: that one
            was not its last.
    """
    tx = visit.tx
    await whitelist.keep(tx, visit.known.account_id)
    before = await _lock(visit)
    if before.bootstrap_mac == asked.mac:
        return await _answer(visit, before)
    if asked.at > visit.now + MOST_AHEAD:
        raise refusals.invalid("Timestamp")
    if before.signed_at is not None and asked.at < before.signed_at:
        await _note_clone(visit, before, DUPLICATE_BOOTSTRAP, asked.imei)
        return Heard(before, refusal=refusals.invalid("Timestamp"))
    profile = None
    if asked.profile_uid is not None:
        profile = await profiles.find(tx, before.account_id, asked.profile_uid)
        if profile is None:
            raise refusals.invalid("DeviceProfileUID")
    module = replace(before, signed_at=asked.at, bootstrap_mac=asked.mac)
    if before.bootstrapped_at is not None and (profile is None or before.profile_id is not None):
        return await _duplicate(visit, before, module, asked)
    return await _seal(visit, before, module, asked, profile)


async def _duplicate(visit: Visit, before: Module, module: Module, asked: mw.Bootstrap) -> Heard:
    module = _seen(module, visit.now)
    await _keep(visit, before, module)
    await _note_clone(visit, module, DUPLICATE_BOOTSTRAP, asked.imei)
    await _note_activity(visit, module, Activity.BOOTSTRAP, {"State": mw.state_of(module), "Duplicate": True})
    return await _answer(visit, module)


async def _seal(visit: Visit, before: Module, module: Module, asked: mw.Bootstrap, profile: Profile | None) -> Heard:
    first = before.bootstrapped_at is None
    news = {
        name: value for name in FACTS
        if (value := getattr(asked, name)) is not None and (first or getattr(before, name) is None)
    }  # fmt: skip
    module = replace(module, **news, bootstrapped_at=before.bootstrapped_at or visit.now)
    if profile is not None:
        module = replace(module, profile=profile.key, profile_id=profile.id, sealed_at=visit.now)
    listed = await whitelist.stands(visit.tx, module.account_id, module.uid, module.imei)
    free = profile is not None and not profile.whitelist_check
    allowed = module.activated or listed or free
    module = replace(module, whitelisted=listed, blacklisted=not allowed, activated=allowed)
    if allowed:
        module = _provisioned(module, profile, visit.now)
    module = _synchronized(module, visit.now)
    module = _seen(module, visit.now)
    await _keep(visit, before, module)
    await _doubt(visit, module)
    facts = mw.write_facts(module)
    await notices.notify(visit.tx, module, Notification.INFO_CHANGE, facts, now=visit.now)
    await notices.announce(visit.tx, module, Event.BOOTSTRAP, facts, now=visit.now)
    await _note_activity(visit, module, Activity.BOOTSTRAP, {"State": mw.state_of(module)})
    await _tell_changes(visit, before, module)
    return await _answer(visit, module)


async def _doubt(visit: Visit, module: Module) -> None:
    for reason, value in ((Doubt.DEVICE_SERIAL, module.device_serial), (Doubt.SERIAL, module.serial)):
        await watch.suspect(visit.tx, module.account_id, module.id, reason, value, now=visit.now)


async def _answer(visit: Visit, module: Module) -> Heard:
    """With all that it has not acknowledged."""
    return Heard(module, await commands.outstanding(visit.tx, module.id))


# --- heartbeat -------------------------------------------------------------------------------------------------------


async def heartbeat(visit: Visit, asked: mw.Heartbeat) -> Heard:
    """A module tells what became of its commands, and gets those that are due.

    Raises:
        Refusal: NOT_ALLOCATED: it has not bootstrapped; MALFORMED with field `CSR`. In `Heard`: MALFORMED with field
            `Counter`, which is noted as a sign that there are two of it.
    """
    before = await _lock(visit)
    if before.bootstrapped_at is None:
        raise Refusal(Reason.NOT_ALLOCATED)
    if asked.counter <= before.counter:
        await _note_clone(visit, before, COUNTER_REGRESSION, before.imei)
        return Heard(before, refusal=refusals.invalid("Counter"))
    csr = _read_csr(asked.csr)
    module = replace(before, counter=asked.counter)
    if before.whitelisted and not before.activated:
        profile = await profiles.find(visit.tx, module.account_id, module.profile) if module.profile else None
        module = _provisioned(replace(module, activated=True, blacklisted=False), profile, visit.now)
    module = _synchronized(module, visit.now)
    module = _seen(module, visit.now)
    await _keep(visit, before, module)
    await _note_activity(visit, module, Activity.HEARTBEAT, {"Counter": asked.counter})
    await _acknowledge(visit, module, asked.applied)
    await _tell_changes(visit, before, module)
    if module.activated:
        await _rotate(visit, module)
        work = issuing.Heartbeat(tx=visit.tx, module=module, csr=csr, now=visit.now)
        for each in await issuing.certificate_commands(work):
            await _give(visit, module, each.kind, each.body)
    return await _answer(visit, module)


def _read_csr(text: str | None) -> pki.Request | None:
    """Raises: Refusal MALFORMED, field `CSR`."""
    if text is None:
        return None
    try:
        return pki.read_csr(text)
    except Refusal as refusal:
        raise Refusal(Reason.MALFORMED, **refusal.detail | {"field": "CSR"}) from None


async def _rotate(visit: Visit, module: Module) -> None:
    """Tell it how its keys change, and whenever they do."""
    rotation = await keysets.due(visit.tx, module.id, visit.now)
    if rotation is not None:
        await _give(visit, module, Kind.ROTATE_KEYSET, mw.write_rotation(rotation.mode, rotation.days))
        await keysets.told(visit.tx, module.id, visit.now)


async def _acknowledge(visit: Visit, module: Module, applied: Sequence[mw.Applied]) -> None:
    """What is not outstanding was acknowledged before: answers get lost."""
    left = await commands.outstanding(visit.tx, module.id) if applied else []
    done: list[int] = []
    for each in applied:
        for command in [command for command in left if each.is_about(command)]:
            left.remove(command)
            done.append(command.id)
            details = {"Id": command.id} | ({"Error": each.why} if each.failed else {})
            await _note_activity(visit, module, command.kind, details, result="ERROR" if each.failed else "OK")
            if each.failed:
                await _tell_failure(visit.tx, module, f"{command.kind}: {each.why}", now=visit.now)
    await commands.drop(visit.tx, module.id, done)


# --- what both do ----------------------------------------------------------------------------------------------------


def _provisioned(module: Module, profile: Profile | None, now: datetime) -> Module:
    """It wants what its profile has for it; what was set for the module itself goes first."""
    if profile is None or not profile.desired:
        return module
    desired = provisioning.merge({}, provisioning.stated(profile.desired), now)
    desired_ca = module.desired_ca if wire.CA_NAME in module.desired else profile.root_ca_id
    return replace(module, desired={**desired, **module.desired}, desired_ca=desired_ca)


def _synchronized(module: Module, now: datetime) -> Module:
    """What is desired of an activated module is current from now on: the commands are on their way."""
    if not module.activated:
        return module
    current = provisioning.synchronize(module.current, module.desired, now)
    current_ca = module.desired_ca if wire.CA_NAME in module.desired else module.current_ca
    return replace(module, current=current, current_ca=current_ca)


def _seen(module: Module, now: datetime) -> Module:
    patience = timedelta(seconds=PATIENCE * provisioning.interval(module.current))
    return replace(module, last_seen=now, due_at=now + patience)


async def _tell_changes(visit: Visit, before: Module, after: Module) -> None:
    """State and properties: to the account, and to the module itself as commands."""
    tx, now = visit.tx, visit.now
    if (state := mw.state_of(after)) != (previous := mw.state_of(before)):
        change: mw.StateChange = {"State": state, "PreviousState": previous}
        await notices.notify(tx, after, Notification.STATE_CHANGE, change, now=now)
    if after.activated and not before.activated:
        await machines.activate(tx, after.id, now)
        tx.emit(DeviceActivated(device_id=after.id, identity=Identity(wire.PROTOCOL, after.account, after.uid)))
    if after.current == before.current:
        return
    payload = mw.write_change(after)
    await notices.notify(tx, after, Notification.PROPERTIES_CHANGE, payload, now=now)
    await notices.announce(tx, after, Event.PROPERTIES_CHANGE, payload, now=now)
    for name in provisioning.switched_on(before.current, after.current):
        if name in COUNTED:
            await usage.count(tx, after.account_id, after.id, name, now)
    if _differ(wire.AUTHORIZATIONS, before, after):
        await _give(visit, after, Kind.SET_AUTHORIZATIONS, mw.write_authorizations(after.current))
    if _differ((wire.HEARTBEAT,), before, after):
        await _give(visit, after, Kind.SET_HEARTBEAT, mw.write_heartbeat(after.current))


def _differ(names: Sequence[str], before: Module, after: Module) -> bool:
    return any(after.current.get(name) != before.current.get(name) for name in names)


async def _give(visit: Visit, module: Module, kind: str, body: Mapping[str, object]) -> None:
    """A command, in place of outstanding ones that it makes pointless."""
    left = await commands.outstanding(visit.tx, module.id)
    pointless = [each.id for each in left if mw.makes_pointless(kind, body, each)]
    await commands.drop(visit.tx, module.id, pointless)
    await commands.add(visit.tx, module.id, kind, body, visit.now)


async def _note_activity(
    visit: Visit, module: Module, command: str, details: Mapping[str, object], *, result: str = "OK"
) -> None:
    await stored.add_activity(visit.tx, module.id, command, visit.now, result=result, details=details)


async def _note_clone(visit: Visit, module: Module, reason: str, imei: str | None) -> None:
    await stored.add_clone_event(
        visit.tx, module.account_id, module.id, reason, visit.now, source=visit.source, imei=imei or module.imei
    )


async def _tell_failure(tx: Tx, module: Module, error: str, *, now: datetime) -> None:
    payload: mw.Failure = {"Error": error}
    await notices.notify(tx, module, Notification.ERROR, payload, now=now)
    await notices.announce(tx, module, Event.ERRORS, payload, now=now)


# --- upkeep ----------------------------------------------------------------------------------------------------------


async def unreachable(tx: Tx, *, now: datetime, limit: int) -> int:
    """Tell of up to `limit` modules that they have not come for too long, each once; returns how many were looked at.

    Of a disabled one nothing is told: it may not come.
    """
    ids = await machines.due(tx, now, limit)
    for module in await modules.by_ids(tx, ids):
        if not module.disabled and module.last_seen is not None:
            error = f"The device is unreachable. It was last seen at {wire.write_time(module.last_seen)}."
            await _tell_failure(tx, module, error, now=now)
    await machines.clear_due(tx, ids)
    return len(ids)
