# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""`gatehouse device disable | enable | reset | allocate | reactivate | replace | kick`.

Each holds on a running service within a second, in whichever process it runs: the database tells it.
"""

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from provisioning.cli import output
from provisioning.cli.options import DeviceKey, GroupOfDevice, Json, ProductOfDevice, Protocol, Serial, address
from provisioning.cli.run import Desk, on_registry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from provisioning.cli.options import Address
    from provisioning.model.registry import Device
    from provisioning.store.database import Tx


def add_to(app: typer.Typer) -> None:
    for command in (disable, enable, reset, allocate, reactivate, replace, kick):
        app.command()(command)


def _step(
    at: "Address", step: "Callable[[Desk, Tx, Device], Awaitable[object]]", done: str, *, as_json: bool
) -> "Device":
    """Find the device, do the step in the same transaction, and say what came of it. The device as it is now."""

    async def work(desk: Desk) -> "Device":
        from provisioning.store import devices

        async with desk.database.begin() as tx:
            device = await at.find(tx)
            await step(desk, tx, device)
            return await devices.by_id(tx, device.id) or device

    device = on_registry(work, at.protocol)
    if as_json:
        output.print_json(output.described(device))
    else:
        print(f"{output.clean(at)} {done.format(**output.described(device))}")
    return device


def disable(
    *,
    product: ProductOfDevice = None,
    device: DeviceKey = None,
    group: GroupOfDevice = None,
    serial: Serial = None,
    protocol: Protocol = "enos",
    as_json: Json = False,
) -> None:
    """Refuse its logins, and end its session."""

    async def step(_desk: Desk, tx: "Tx", which: "Device") -> None:
        from provisioning.core import registry

        await registry.disable(tx, which)

    _step(address(protocol, product, device, group, serial), step, "is disabled", as_json=as_json)


def enable(
    *,
    product: ProductOfDevice = None,
    device: DeviceKey = None,
    group: GroupOfDevice = None,
    serial: Serial = None,
    protocol: Protocol = "enos",
    as_json: Json = False,
) -> None:
    """Let a disabled device log in again."""

    async def step(_desk: Desk, tx: "Tx", which: "Device") -> None:
        from provisioning.core import registry

        await registry.enable(tx, which)

    _step(address(protocol, product, device, group, serial), step, "is enabled", as_json=as_json)


def reset(
    *,
    product: ProductOfDevice = None,
    device: DeviceKey = None,
    group: GroupOfDevice = None,
    serial: Serial = None,
    protocol: Protocol = "enos",
    as_json: Json = False,
) -> None:
    """Destroy its secret, and end its session; it enrols or activates anew."""

    async def step(desk: Desk, tx: "Tx", which: "Device") -> None:
        from provisioning.core import registry

        await registry.reset(tx, which, desk.vendor.forms)

    now = _step(address(protocol, product, device, group, serial), step, "is reset: {state}", as_json=as_json)
    if now.secret and not as_json:
        shown = shlex.join(["gatehouse", "device", "show", now.product, now.key, "--reveal"])
        output.note(f"it has a new secret; `{output.clean(shown)}` shows it")


def allocate(
    *,
    product: ProductOfDevice = None,
    device: DeviceKey = None,
    group: GroupOfDevice = None,
    serial: Serial = None,
    into: Annotated[str | None, typer.Option(help="Key of the product; that of its group when not given.")] = None,
    key: Annotated[str | None, typer.Option(help="Its key in the product; made up when not given.")] = None,
    secret: Annotated[str | None, typer.Option(help="Its own secret; made up when not given.")] = None,
    protocol: Protocol = "enos",
    as_json: Json = False,
) -> None:
    """Give a registered device its product, key and secret."""

    async def step(desk: Desk, tx: "Tx", which: "Device") -> None:
        from provisioning.cli.run import Failure
        from provisioning.core import registry

        target = into or which.product or (await registry.group(tx, protocol, which.group)).product
        if not target:
            raise Failure(f"group {which.group} has no product: name one with --into")
        # The form of key and secret; which of them the device gets is the verb's business.
        desk.device(product=target, key=key or which.key or "any", secret=secret)
        await registry.allocate(tx, which, await registry.product(tx, protocol, target), key or "", secret or "")

    _step(address(protocol, product, device, group, serial), step, "is allocated: {product}/{key}", as_json=as_json)


def reactivate(
    *,
    product: ProductOfDevice = None,
    device: DeviceKey = None,
    group: GroupOfDevice = None,
    serial: Serial = None,
    protocol: Protocol = "enos",
    as_json: Json = False,
) -> None:
    """Let it activate dynamically as if it never had."""

    async def step(_desk: Desk, tx: "Tx", which: "Device") -> None:
        from provisioning.core import registry

        await registry.reopen_activation(tx, which)

    _step(address(protocol, product, device, group, serial), step, "may activate again", as_json=as_json)


def replace(
    *,
    new_serial: Annotated[str, typer.Option(help="Serial number of the new hardware.")],
    product: ProductOfDevice = None,
    device: DeviceKey = None,
    group: GroupOfDevice = None,
    serial: Serial = None,
    protocol: Protocol = "enos",
    as_json: Json = False,
) -> None:
    """Put new hardware in its place; the old serial number is retired."""

    async def step(desk: Desk, tx: "Tx", which: "Device") -> None:
        from provisioning.core import registry

        desk.device(group="any", serial=new_serial)  # its form
        await registry.replace_serial(tx, which, new_serial)

    _step(address(protocol, product, device, group, serial), step, "has serial number {serial} now", as_json=as_json)


def kick(
    *,
    product: ProductOfDevice = None,
    device: DeviceKey = None,
    group: GroupOfDevice = None,
    serial: Serial = None,
    protocol: Protocol = "enos",
    as_json: Json = False,
) -> None:
    """End its session; it may log in again at once."""

    async def step(_desk: Desk, tx: "Tx", which: "Device") -> None:
        from provisioning.core import enrol
        from provisioning.store import devices

        enrol.allocated(which)
        await devices.kick(tx, which)

    _step(address(protocol, product, device, group, serial), step, "was told to leave", as_json=as_json)
