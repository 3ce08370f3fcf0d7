"""In bulk, as `load`: accounts, their device profiles, and their modules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from provisioning.core import accounts, generate, registry, watch
from provisioning.core.load import Outcome
from provisioning.model.account import Account, AccountSpec, ModuleSpec, ProfileSpec
from provisioning.model.events import DeviceDisabled, DeviceEnabled, DeviceRegistered
from provisioning.model.lifecycle import State
from provisioning.model.module import Module
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Group
from provisioning.store import accounts as store
from provisioning.store import devices, groups, modules, products, tenants, whitelist
from provisioning.store.database import Tx

T = TypeVar("T")

Result = tuple[Outcome, Device] | Refusal


def _or(stated: T | None, otherwise: T) -> T:
    return otherwise if stated is None else stated


def _missing(name: str) -> Refusal:
    return Refusal(Reason.MALFORMED, field=name, rule="is missing")


async def put_account(tx: Tx, spec: AccountSpec) -> tuple[Outcome, Account]:
    """Create the account, or change what is stated of it. Another secret ends the tokens of the one before.

    Raises:
        Refusal: MALFORMED, when it is new and no secret is stated; DUPLICATE from the transaction, when somebody
            creates it at the same time.
    """
    secret_hash = accounts.hash_secret(spec.secret) if spec.secret is not None else spec.secret_hash
    found = await store.find(tx, spec.protocol, spec.key)
    if found is None:
        if secret_hash is None:
            raise _missing("apiSecret")
        return Outcome.CREATED, await accounts.create(
            tx, spec.protocol, spec.key, secret_hash, name=_or(spec.name, ""), strict_e2e=_or(spec.strict_e2e, False),
            certificates=_or(spec.certificates, True), demo=_or(spec.demo, False),
        )  # fmt: skip
    old, known_hash = found
    new = replace(
        old, name=_or(spec.name, old.name), strict_e2e=_or(spec.strict_e2e, old.strict_e2e),
        certificates=_or(spec.certificates, old.certificates),
    )  # fmt: skip
    product = await registry.product(tx, spec.protocol, spec.key)
    named = replace(product, name=new.name, demo=_or(spec.demo, product.demo))
    is_new_secret = secret_hash is not None and secret_hash != known_hash
    if (new, named) == (old, product) and not is_new_secret:
        return Outcome.UNCHANGED, old
    if named != product:
        await products.update(tx, named)
    if new != old:
        await store.update(tx, new)
    if is_new_secret:
        assert secret_hash is not None
        new = await accounts.rotate(tx, new, spec.protocol, secret_hash)
    return Outcome.UPDATED, new


async def put_profile(tx: Tx, spec: ProfileSpec) -> tuple[Outcome, Group]:
    """Create the device profile, or change what is stated of it.

    Raises:
        Refusal: UNKNOWN, when its account does not exist; DUPLICATE, when it is another account's.
    """
    account = await accounts.find(tx, spec.protocol, spec.product or "")
    old = await groups.find(tx, spec.protocol, spec.key)
    if old is None:
        new = Group(
            protocol=spec.protocol, key=spec.key, password=generate.secret(), product=account.key,
            product_id=account.id, name=_or(spec.name, ""),
        )  # fmt: skip
        new = await groups.add(tx, new)
        await tenants.add_profile(tx, new, account.id, whitelist_check=_or(spec.whitelist_check, True))
        return Outcome.CREATED, new
    if old.product_id != account.id:
        raise Refusal(Reason.DUPLICATE, field="profile")
    check = (await tenants.whitelist_checks(tx, [old.id]))[old.id]
    new, new_check = replace(old, name=_or(spec.name, old.name)), _or(spec.whitelist_check, check)
    if (new, new_check) == (old, check):
        return Outcome.UNCHANGED, old
    if new != old:
        await groups.update(tx, new)
    if new_check != check:
        await tenants.set_whitelist_check(tx, new, whitelist_check=new_check)
    return Outcome.UPDATED, new


@dataclass(slots=True)
class _Batch:
    """Rows on their way into the registry."""

    specs: Sequence[ModuleSpec]
    results: list[Result] = field(default_factory=list)
    fresh: list[tuple[int, Device, int]] = field(default_factory=list)
    """Of new devices: which row, the device, its account."""
    changed: dict[int, int] = field(default_factory=dict)
    """Of devices that differ from what is stated: which row, by id."""
    produced: list[tenants.Produced] = field(default_factory=list)
    """Modules whose serial number in the production log is new."""
    unsettled: list[int] = field(default_factory=list)
    """Ids of modules that the whitelist may name."""


async def put_modules(tx: Tx, specs: Sequence[ModuleSpec], *, now: datetime) -> list[Result]:
    """Create the devices, or change what is stated of them; a result for each. One protocol at a time.

    What a module has told by itself is not changed: of one that has bootstrapped its IMEI and the serial number that it
    has sealed. A module of another account is DUPLICATE, a new one without its root secret MALFORMED.

    As `load.put_devices`: a row that cannot be brought about is a Refusal in the result; a clash with somebody who
    writes at the same time raises DUPLICATE from the transaction and undoes all.
    """
    protocol = specs[0].protocol if specs else ""
    found = await store.find_all(tx, protocol, sorted({spec.product or "" for spec in specs}))
    of = {key: account for key, (account, _) in found.items()}
    for account_id in sorted(account.id for account in of.values()):
        await whitelist.keep(tx, account_id)
    # Another import waits: it must see which serial numbers of production logs are here already.
    await store.lock(tx, [account.id for account in of.values()])
    known = await modules.by_uids(tx, [spec.key or "" for spec in specs])
    old = {device.id: device for device in await devices.by_ids(tx, [each.id for each in known.values()])}
    batch = _Batch(specs)
    later: list[int] = []
    seen: set[str | None] = set()
    for at, spec in enumerate(specs):
        module = known.get(spec.key or "")
        if spec.product not in of:
            batch.results.append(Refusal(Reason.UNKNOWN, account=spec.product))
        elif spec.key in seen:
            later.append(at)  # the same device twice: the second row must see what the first has done
            batch.results.append(Refusal(Reason.INTERNAL))
        else:
            device = old[module.id] if module else None
            batch.results.append(_judge(batch, at, of[spec.product], device, module))
        seen.add(spec.key)
    await _add(tx, batch)
    await _change(tx, batch)
    await whitelist.settle_modules(tx, batch.unsettled)
    shared = await tenants.sharing_a_serial(tx, batch.produced)
    await watch.suspect_all(
        tx, watch.Doubt.PRODUCTION_SERIAL, [(each.account_id, each.device_id, each.serial) for each in shared], now=now
    )
    for at in later:
        batch.results[at] = (await put_modules(tx, [specs[at]], now=now))[0]
    return batch.results


def _judge(batch: _Batch, at: int, account: Account, device: Device | None, module: Module | None) -> Result:
    """What becomes of a row; what there is to write for it is noted in the batch."""
    spec = batch.specs[at]
    if device is None or module is None:
        if spec.secret is None:
            return _missing("rootSecret")
        new = Device(
            protocol=spec.protocol, state=State.ALLOCATED, product=account.key, key=spec.key or "", secret=spec.secret,
            name=_or(spec.name, ""), disabled=_or(spec.disabled, False),
        )  # fmt: skip
        batch.fresh.append((at, new, account.id))
        return Outcome.CREATED, new
    if module.account_id != account.id:
        return Refusal(Reason.DUPLICATE, field="device")
    if _wanted(device, module, spec) == (device, {}):
        return Outcome.UNCHANGED, device
    batch.changed[device.id] = at
    return Refusal(Reason.UNKNOWN, device=spec.key)  # unless it is still there when it is locked


def _wanted(device: Device, module: Module, spec: ModuleSpec) -> tuple[Device, Mapping[str, Any]]:
    """The device as it is stated, and the columns of its module that differ."""
    new = replace(
        device, name=_or(spec.name, device.name), disabled=_or(spec.disabled, device.disabled),
        secret=_or(spec.secret, device.secret),
    )  # fmt: skip
    columns: dict[str, Any] = {}
    has_bootstrapped = module.bootstrapped_at is not None
    if spec.device_serial not in {None, module.production_serial}:
        columns["production_serial"] = spec.device_serial
        if not has_bootstrapped:
            columns["device_serial"] = spec.device_serial
    if spec.imei not in {None, module.imei} and not (has_bootstrapped and module.imei):
        columns["imei"] = spec.imei
    return new, columns


async def _add(tx: Tx, batch: _Batch) -> None:
    added = await devices.add_many(tx, [(new, account_id, None) for _, new, account_id in batch.fresh])
    rows = []
    for (at, _, account_id), device in zip(batch.fresh, added, strict=True):
        spec = batch.specs[at]
        batch.results[at] = Outcome.CREATED, device
        rows.append((device.id, account_id, device.key, spec.device_serial, spec.imei))
        if spec.device_serial:
            batch.produced.append(tenants.Produced(account_id, device.id, spec.device_serial))
        tx.emit(DeviceRegistered(device_id=device.id, identity=device.identity))
        batch.unsettled.append(device.id)
    await modules.add(tx, rows)


async def _change(tx: Tx, batch: _Batch) -> None:
    if not batch.changed:
        return
    ids = sorted(batch.changed)
    locked = {device.id: device for device in await devices.lock_all(tx, ids)}
    for module in await modules.lock(tx, list(locked)):
        await _change_one(tx, batch, locked[module.id], module)


async def _change_one(tx: Tx, batch: _Batch, device: Device, module: Module) -> None:
    """Both are locked: whatever others did before has been done."""
    at = batch.changed[device.id]
    new, columns = _wanted(device, module, batch.specs[at])
    batch.results[at] = Outcome.UPDATED, new
    if new.secret != device.secret:
        await devices.set_secret(tx, new)
    if new.disabled != device.disabled:
        await devices.set_disabled(tx, new, disabled=new.disabled)
        tx.emit((DeviceDisabled if new.disabled else DeviceEnabled)(device_id=new.id, identity=new.identity))
    if new.name != device.name:
        await devices.describe(tx, new)
    await modules.update(tx, module.id, columns)
    if "imei" in columns:
        batch.unsettled.append(module.id)
    if "production_serial" in columns:
        batch.produced.append(tenants.Produced(module.account_id, module.id, columns["production_serial"]))
