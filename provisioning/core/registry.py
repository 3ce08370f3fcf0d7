"""What administrators do to products, groups and devices, one at a time."""

from dataclasses import replace

from provisioning.core import enrol
from provisioning.core.generate import HOUSE
from provisioning.model.events import DeviceDeleted, DeviceDisabled, DeviceEnabled, DeviceReset
from provisioning.model.lifecycle import State, Step, after
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Group, Product
from provisioning.model.spec import Forms
from provisioning.store import devices, groups, products
from provisioning.store.database import Tx


async def product(tx: Tx, protocol: str, key: str) -> Product:
    """Raises: Refusal UNKNOWN."""
    if found := await products.find(tx, protocol, key):
        return found
    raise Refusal(Reason.UNKNOWN, product=key)


async def group(tx: Tx, protocol: str, key: str) -> Group:
    """Raises: Refusal UNKNOWN."""
    if found := await groups.find(tx, protocol, key):
        return found
    raise Refusal(Reason.UNKNOWN, group=key)


async def device(tx: Tx, protocol: str, product_key: str, key: str) -> Device:
    """Raises: Refusal UNKNOWN."""
    of = await product(tx, protocol, product_key)
    if found := (await devices.by_keys(tx, of.id, [key])).get(key):
        return found
    raise Refusal(Reason.UNKNOWN, product=product_key, device=key)


async def device_by_serial(tx: Tx, protocol: str, group_key: str, serial: str) -> Device:
    """Raises: Refusal UNKNOWN."""
    of = await group(tx, protocol, group_key)
    if found := await devices.by_serial(tx, of, serial):
        return found
    raise Refusal(Reason.UNKNOWN, group=group_key, serial=serial)


async def delete_product(tx: Tx, which: Product, *, cascade: bool) -> int:
    """Delete a product; with `cascade` its devices and its groups too. Returns how many devices went.

    Raises:
        Refusal: IN_USE from the transaction, while it has devices or groups.
    """
    count = 0
    if cascade:
        await products.lock_for_deletion(tx, which)
        of_product = await groups.of_product(tx, which.id)
        count = await _delete_devices(tx, which.id, of_product)
        for each in of_product:
            await groups.delete(tx, each)
    await products.delete(tx, which)
    return count


async def delete_group(tx: Tx, which: Group, *, cascade: bool) -> int:
    """Delete a group; with `cascade` its devices too. Returns how many devices went.

    Raises:
        Refusal: IN_USE from the transaction, while it has devices.
    """
    count = await _delete_devices(tx, None, [which]) if cascade else 0
    await groups.delete(tx, which)
    return count


async def _delete_devices(tx: Tx, product_id: int | None, of: list[Group]) -> int:
    gone = await devices.delete_all(tx, product_id, [each.id for each in of])
    tx.emit(*(DeviceDeleted(device_id=device_id, identity=identity) for device_id, identity in gone))
    return len(gone)


async def delete_device(tx: Tx, which: Device) -> None:
    """Raises: Refusal UNKNOWN, when it is gone already."""
    which = await devices.lock(tx, which)
    await devices.delete(tx, which)
    tx.emit(DeviceDeleted(device_id=which.id, identity=which.identity, serial=which.serial))


async def disable(tx: Tx, which: Device) -> None:
    """Raises: Refusal ILLEGAL_TRANSITION, when it is disabled already."""
    which = await devices.lock(tx, which)
    if which.disabled:
        raise Refusal(Reason.ILLEGAL_TRANSITION, state="disabled", step="disable")
    await devices.set_disabled(tx, which, disabled=True)
    tx.emit(DeviceDisabled(device_id=which.id, identity=which.identity, serial=which.serial))


async def enable(tx: Tx, which: Device) -> None:
    """Raises: Refusal ILLEGAL_TRANSITION: enabling an enabled device is an error (EnOS reference, section 7)."""
    which = await devices.lock(tx, which)
    if not which.disabled:
        raise Refusal(Reason.ILLEGAL_TRANSITION, state="enabled", step="enable")
    await devices.set_disabled(tx, which, disabled=False)
    tx.emit(DeviceEnabled(device_id=which.id, identity=which.identity, serial=which.serial))


async def reset(tx: Tx, which: Device, forms: Forms = HOUSE) -> Device:
    """Destroy the secret and end the session.

    A device that enrols is registered again and gets a new secret by its next enrolment, or by `allocate`. One without
    a serial number could never come back: it is allocated again at once, with a new secret that it fetches by dynamic
    activation or that is carried to it.

    Raises:
        Refusal: ILLEGAL_TRANSITION, when it is not allocated.
    """
    which = await devices.lock(tx, which)
    state = after(which.state, Step.RESET)
    of = await product(tx, which.protocol, which.product)
    await devices.reset(tx, which)
    tx.emit(DeviceReset(device_id=which.id, identity=which.identity, serial=which.serial))
    which = replace(which, state=state, secret="", activations=0, activated_at=None)
    if which.serial:
        return which
    return await enrol.allocate(tx, which, of.key, of.id, forms=forms)


async def allocate(tx: Tx, which: Device, into: Product, key: str = "", secret: str = "") -> Device:
    """Give a registered device its triple.

    Raises:
        Refusal: ILLEGAL_TRANSITION when it is allocated already; DUPLICATE from the transaction, when the key is taken.
    """
    return await enrol.allocate(tx, await devices.lock(tx, which), into.key, into.id, key=key, secret=secret)


async def replace_serial(tx: Tx, which: Device, serial: str) -> Device:
    """New hardware takes the device's place under its own serial number; the old number is retired.

    Raises:
        Refusal: ILLEGAL_TRANSITION for a device without a serial number; DUPLICATE from the transaction.
    """
    which = await devices.lock(tx, which)
    if not which.serial:
        raise Refusal(Reason.ILLEGAL_TRANSITION, state="without serial number", step="replace")
    await devices.rename_serial(tx, which, serial)
    return replace(which, serial=serial)


async def reopen_activation(tx: Tx, which: Device) -> None:
    """Set the counter of activation sessions back.

    Raises:
        Refusal: ILLEGAL_TRANSITION, when the device has logged in with its own secret: reset it instead.
    """
    which = await devices.lock(tx, which)
    if which.state is not State.ALLOCATED:
        raise Refusal(Reason.ILLEGAL_TRANSITION, state=str(which.state), step="activate again")
    await devices.reopen_activation(tx, which)


async def new_secret(tx: Tx, which: Device, secret: str = "", forms: Forms = HOUSE) -> Device:
    """Change the secret in place; the device's session ends.

    Raises:
        Refusal: NOT_ALLOCATED.
    """
    which = replace(enrol.allocated(await devices.lock(tx, which)), secret=secret or forms.device_secret())
    await devices.set_secret(tx, which)
    return which
