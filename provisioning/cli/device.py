# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""`gatehouse device`: the life of one device. `device_steps` has the steps of it."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from provisioning.cli import device_steps, output
from provisioning.cli.options import (
    Address,
    DeviceKey,
    GroupOfDevice,
    Json,
    Limit,
    Name,
    ProductOfDevice,
    Protocol,
    Reveal,
    Serial,
    Yes,
    address,
    device_key,
    product_key,
)
from provisioning.cli.paging import everything
from provisioning.cli.run import Desk, Failure, on_registry
from provisioning.model.lifecycle import State

if TYPE_CHECKING:
    from provisioning.model.registry import Device
    from provisioning.model.spec import DeviceSpec
    from provisioning.store.database import Tx

app = typer.Typer(help="Devices, as PRODUCT DEVICE or as --group GROUP --serial SERIAL.", no_args_is_help=True)
device_steps.add_to(app)
COLUMNS: Final = ("product", "key", "group", "serial", "state", "disabled", "online", "name")

Secret = Annotated[str | None, typer.Option(help="Its own secret.")]
Asset = Annotated[str | None, typer.Option(help="Asset id, by which the vendor's applications know it.")]
Timezone = Annotated[str | None, typer.Option(help="+08:00 or an IANA name.")]


async def _put(tx: "Tx", spec: "DeviceSpec") -> "tuple[str, Device]":
    from datetime import UTC, datetime

    from provisioning.core.importing import put_devices
    from provisioning.model.refusal import Refusal

    result = (await put_devices(tx, [spec], now=datetime.now(UTC)))[0]
    if isinstance(result, Refusal):
        raise result
    return result


@app.command()
def create(
    *,
    product: ProductOfDevice = None,
    device: DeviceKey = None,
    group: GroupOfDevice = None,
    serial: Serial = None,
    secret: Secret = None,
    name: Name = None,
    timezone: Timezone = None,
    asset: Asset = None,
    protocol: Protocol = "enos",
    as_json: Json = False,
) -> None:
    """Create a device, and print it with its secret.

    In a PRODUCT it is allocated; its key is made up when not given. With --group and --serial alone it is registered.
    """
    if product is None and not (group and serial):
        raise typer.BadParameter("give PRODUCT [DEVICE], or --group GROUP --serial SERIAL, or both")

    async def work(desk: Desk) -> "Device":
        from provisioning.core import load

        key = desk.vendor.forms.device_key() if product is not None and device is None else device
        key = key and device_key(protocol, key)
        spec = desk.device(
            product=product and product_key(protocol, product),
            key=key,
            group=group,
            serial=serial,
            secret=secret,
            name=name,
            timezone=timezone,
            asset=asset,
        )
        async with desk.database.begin() as tx:
            outcome, made = await _put(tx, spec)
            if outcome != load.Outcome.CREATED:
                raise Failure(f"there is a device {_names(made)} already; `gatehouse device set` changes it")
        return made

    output.show(output.made(on_registry(work, protocol, new=True)), as_json=as_json)


def _names(device: "Device") -> str:
    """Those that it has."""
    by_key = f"{device.product}/{device.key}" if device.key else ""
    by_serial = f"{device.group}:{device.serial}" if device.serial else ""
    return f"{by_key} ({by_serial})" if by_key and by_serial else by_key or by_serial


@app.command("list")
def list_(
    *,
    product: Annotated[str | None, typer.Option(help="Of this product only.")] = None,
    group: Annotated[str | None, typer.Option(help="Of this group only.")] = None,
    state: Annotated[State | None, typer.Option(help="In this state only.")] = None,
    disabled: Annotated[bool | None, typer.Option("--disabled/--enabled", help="Only those.")] = None,
    protocol: Protocol = "enos",
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """List devices."""

    async def work(desk: Desk) -> None:
        from provisioning.store import devices

        of = product and product_key(protocol, product)
        which = devices.Filter(protocol=protocol, product=of, group=group, state=state, disabled=disabled)
        await everything(
            desk, COLUMNS, lambda tx, last, size: devices.page(tx, which, last.id if last else 0, size),
            limit=limit, as_json=as_json,
        )  # fmt: skip

    on_registry(work, protocol)


@app.command()
def show(
    *,
    product: ProductOfDevice = None,
    device: DeviceKey = None,
    group: GroupOfDevice = None,
    serial: Serial = None,
    protocol: Protocol = "enos",
    reveal: Reveal = False,
    as_json: Json = False,
) -> None:
    """Show a device."""
    at = address(protocol, product, device, group, serial)

    async def work(desk: Desk) -> "Device":
        async with desk.database.read() as tx:
            return await at.find(tx)

    output.show(output.described(on_registry(work, protocol), reveal=reveal), as_json=as_json)


@app.command("set")
def set_(
    *,
    product: ProductOfDevice = None,
    device: DeviceKey = None,
    group: GroupOfDevice = None,
    serial: Serial = None,
    secret: Secret = None,
    name: Name = None,
    timezone: Timezone = None,
    asset: Asset = None,
    protocol: Protocol = "enos",
    as_json: Json = False,
) -> None:
    """Change what is given of a device. A device named by PRODUCT DEVICE may be given a --group and --serial."""
    at = address(protocol, product, device, None if product else group, None if product else serial)

    async def work(desk: Desk) -> "tuple[str, Device]":
        spec = desk.device(
            product=at.product, key=at.key, group=group, serial=serial, name=name, timezone=timezone, asset=asset
        )
        async with desk.database.begin() as tx:
            found = await at.find(tx)
            outcome, put = await _put(tx, spec)
            if secret is not None:
                outcome, put = await _set_secret(desk, tx, found, secret) or (outcome, put)
        return outcome, put

    outcome, put = on_registry(work, protocol)
    output.changed(outcome, str(at), output.described(put), as_json=as_json)


async def _set_secret(desk: Desk, tx: "Tx", device: "Device", secret: str) -> "tuple[str, Device] | None":
    """A device that is addressed by its serial number has a secret too, if it is allocated. None: it has this one."""
    from provisioning.core import enrol, registry

    enrol.allocated(device)
    desk.device(product=device.product, key=device.key, secret=secret)
    return None if secret == device.secret else ("updated", await registry.new_secret(tx, device, secret))


@app.command()
def delete(
    *,
    product: ProductOfDevice = None,
    device: DeviceKey = None,
    group: GroupOfDevice = None,
    serial: Serial = None,
    yes: Yes = False,
    protocol: Protocol = "enos",
    as_json: Json = False,
) -> None:
    """Delete a device; its session ends."""
    at: Address = address(protocol, product, device, group, serial)
    if not output.confirm(f"Delete device {at}?", yes=yes):
        raise typer.Exit(1)

    async def work(desk: Desk) -> None:
        from provisioning.core import registry

        async with desk.database.begin() as tx:
            await registry.delete_device(tx, await at.find(tx))

    on_registry(work, protocol)
    output.deleted("device", str(at), 0, as_json=as_json)
