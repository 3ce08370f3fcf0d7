"""In bulk, as `load`: devices whose key is unique in their protocol, with the accounts that have claimed them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from provisioning.core import claims, generate
from provisioning.core.load import Outcome
from provisioning.model.claim import Claim, ClaimableSpec, CloudType, DeviceClaimed
from provisioning.model.events import DeviceDisabled, DeviceEnabled, DeviceRegistered
from provisioning.model.lifecycle import State
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Product
from provisioning.store import claims as store
from provisioning.store import devices, products
from provisioning.store.database import Tx

DEFAULT_CLOUD: Final = Claim(account="", cloud_type=CloudType.HOSTED, cloud_name="main", cloud_region="local")
"""Of what a spec does not state."""


async def put_devices(tx: Tx, specs: Sequence[ClaimableSpec]) -> list[tuple[Outcome, Device] | Refusal]:
    """Create the devices, or change what is stated of them; a result for each. One protocol at a time.

    As `load.put_devices`: a row that cannot be brought about is a Refusal in the result; a clash with somebody who
    writes at the same time raises DUPLICATE from the transaction and undoes all.
    """
    protocol = specs[0].protocol if specs else ""
    of = await products.find_all(tx, protocol, sorted({spec.product or "" for spec in specs}))
    known = await store.find_all(tx, protocol, [spec.key or "" for spec in specs])
    held = await store.of(tx, [device.id for device in known.values()])
    results: list[tuple[Outcome, Device] | Refusal] = []
    fresh: dict[str | None, tuple[int, Device]] = {}
    later: list[int] = []
    seen: set[str | None] = set()
    for at, spec in enumerate(specs):
        old = known.get(spec.key or "")
        if spec.product not in of:
            results.append(Refusal(Reason.UNKNOWN, product=spec.product))
        elif spec.key in seen:
            later.append(at)  # the same device twice: the second row must see what the first has done
            results.append(Refusal(Reason.INTERNAL))
        elif old is None:
            new = _make(spec, of[spec.product])
            fresh[spec.key] = at, new
            results.append((Outcome.CREATED, new))
        else:
            try:
                results.append(await _change(tx, old, held.get(old.id), spec))
            except Refusal as refusal:
                results.append(refusal)
        seen.add(spec.key)
    await _add(tx, specs, of, fresh, results)
    for at in later:
        results[at] = (await put_devices(tx, [specs[at]]))[0]
    return results


async def _add(
    tx: Tx,
    specs: Sequence[ClaimableSpec],
    of: dict[str, Product],
    fresh: dict[str | None, tuple[int, Device]],
    results: list[tuple[Outcome, Device] | Refusal],
) -> None:
    added = await devices.add_many(tx, [(new, of[new.product].id, None) for _, new in fresh.values()])
    await store.name_all(tx, added)
    held: list[tuple[int, Claim]] = []
    for (at, _), device in zip(fresh.values(), added, strict=True):
        results[at] = Outcome.CREATED, device
        tx.emit(DeviceRegistered(device_id=device.id, identity=device.identity))
        if stated := _claim(specs[at], DEFAULT_CLOUD):
            held.append((device.id, stated))
            tx.emit(DeviceClaimed(device_id=device.id, identity=device.identity))
    await store.put(tx, held)


def _make(spec: ClaimableSpec, product: Product) -> Device:
    new = Device(
        protocol=spec.protocol, state=State.REGISTERED, product=product.key, key=spec.key or "", name=spec.name or "",
        disabled=bool(spec.disabled), certificate_login=product.certificate_login,
    )  # fmt: skip
    return replace(new, state=State.ALLOCATED, secret=generate.secret()) if spec.account else new


def _claim(spec: ClaimableSpec, otherwise: Claim) -> Claim | None:
    if not spec.account:
        return None
    return Claim(
        account=spec.account, cloud_type=spec.cloud_type or otherwise.cloud_type,
        cloud_name=spec.cloud_name or otherwise.cloud_name, cloud_region=spec.cloud_region or otherwise.cloud_region,
    )  # fmt: skip


async def _change(tx: Tx, old: Device, held: Claim | None, spec: ClaimableSpec) -> tuple[Outcome, Device]:
    """Raises: Refusal DUPLICATE, when it belongs to another product; ILLEGAL_TRANSITION, when to another account."""
    if old.product != spec.product:
        raise Refusal(Reason.DUPLICATE, field="id")
    stated = _claim(spec, held or DEFAULT_CLOUD)
    if held is not None and stated is not None and held.account != stated.account:
        raise Refusal(Reason.ILLEGAL_TRANSITION, state=f"claimed by account {held.account}", step="claim")
    is_new_claim = stated is not None and (held is None or not held.is_same(stated))
    name = old.name if spec.name is None else spec.name
    disabled = old.disabled if spec.disabled is None else spec.disabled
    if not is_new_claim and (name, disabled) == (old.name, old.disabled):
        return Outcome.UNCHANGED, old
    current = await devices.lock(tx, old)
    now_held = await claims.claim_of(tx, current)
    if current != old or now_held != held:  # somebody was faster
        return await _change(tx, current, now_held, spec)
    if is_new_claim:
        assert stated is not None
        await (claims.claim(tx, old, stated) if held is None else store.put(tx, [(old.id, stated)]))
    if disabled != old.disabled:
        await devices.set_disabled(tx, old, disabled=disabled)
        tx.emit((DeviceDisabled if disabled else DeviceEnabled)(device_id=old.id, identity=old.identity))
    if name != old.name:
        await devices.describe(tx, replace(old, name=name))
    return Outcome.UPDATED, await devices.by_id(tx, old.id) or old
