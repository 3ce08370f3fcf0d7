# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""`gatehouse update`."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from provisioning.cli import output
from provisioning.cli.options import Json, Limit, Yes, product_key
from provisioning.cli.paging import everything
from provisioning.cli.run import Desk, Failure, on_registry

if TYPE_CHECKING:
    from provisioning.model.update import Update

app = typer.Typer(help="Updates of the devices' software.", no_args_is_help=True)
COLUMNS: Final = ("update", "product", "version", "state", "percentage", "test", "offered", "succeeded", "failed")

RATE: Final = re.compile(r"([1-9][0-9]{0,8})(?:/(s|m|h|d))?")
PERIODS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
MEGABYTE: Final = 1_000_000

Name = Annotated[str, typer.Argument(metavar="UPDATE", help="Its name, such as upd1.")]
Protocol = Annotated[str, typer.Option(help="Whose device protocol.")]


@app.command()
def publish(
    *,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="File that devices download.")],
    product: Annotated[str, typer.Option(help="Token or key of the product.")],
    version: Annotated[str, typer.Option(help="Version of the image, as devices then report it (SemVer).")],
    policy: Annotated[str, typer.Option(help="Which devices: an expression over what they submit.")] = "",
    percent: Annotated[int, typer.Option(min=1, max=100, help="So many percent of the devices.")] = 100,
    max_devices: Annotated[int | None, typer.Option("--max", min=1, help="At most so many devices.")] = None,
    rate: Annotated[str | None, typer.Option(metavar="N[/s|/m|/h|/d]",
                                             help="So many devices in any second, minute, hour or day.")] = None,
    test: Annotated[bool, typer.Option("--test", help="For test devices only.")] = False,
    protocol: Protocol = "ioto",
    as_json: Json = False,
) -> None:  # fmt: skip
    """Store an image, and offer it from now on."""
    devices, period = read_rate(rate)

    async def work(desk: Desk) -> "Update":
        from provisioning import rollout
        from provisioning.core import updates

        new = updates.Update(
            protocol=protocol, product=product_key(protocol, product), version=version, checksum="", size=0,
            file=updates.file_name(image.name), policy=policy, percentage=percent, max_devices=max_devices,
            rate=devices, rate_period=period, test=test,
        )  # fmt: skip
        async with _images(desk) as images:
            with _progress(image) as progress:
                return await rollout.publish(desk.database, images, new, image, progress)

    output.show(described(on_registry(_told(work), protocol)), as_json=as_json)


@app.command("list")
def list_(
    product: Annotated[str | None, typer.Option(help="Token or key of a product.")] = None,
    protocol: Protocol = "ioto",
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """List updates, oldest first."""

    async def work(desk: Desk) -> None:
        from provisioning.store import updates

        key = product and product_key(protocol, product)
        await everything(
            desk, COLUMNS, lambda tx, last, n: updates.page(tx, protocol, key, last.id if last else 0, n),
            limit=limit, as_json=as_json, describe=described,
        )  # fmt: skip

    on_registry(work, protocol)


@app.command()
def show(update: Name, protocol: Protocol = "ioto", as_json: Json = False) -> None:
    """Show an update, and how it goes."""

    async def work(desk: Desk) -> "Update":
        from provisioning.core import updates

        async with desk.database.read() as tx:
            return await updates.find(tx, update)

    output.show(described(on_registry(work, protocol)), as_json=as_json)


@app.command()
def stop(update: Name, protocol: Protocol = "ioto", as_json: Json = False) -> None:
    """Offer an update to nobody any more. Links that were given remain good for a day."""

    async def work(desk: Desk) -> "Update":
        from datetime import UTC, datetime

        from provisioning.core import updates
        from provisioning.model.refusal import Reason, Refusal

        try:
            async with desk.database.begin() as tx:
                return await updates.stop(tx, update, datetime.now(UTC))
        except Refusal as refusal:
            if refusal.reason is Reason.ILLEGAL_TRANSITION:
                raise Failure(f"{update} is stopped already") from refusal
            raise

    output.changed("stopped", update, described(on_registry(work, protocol)), as_json=as_json)


@app.command()
def delete(update: Name, yes: Yes = False, protocol: Protocol = "ioto", as_json: Json = False) -> None:
    """Delete an update with its counts, and its image unless another update has it."""
    if not output.confirm(f"Delete {update} and its counts?", yes=yes):
        raise typer.Exit(1)

    async def work(desk: Desk) -> "Update":
        from provisioning import rollout

        async with _images(desk) as images:
            return await rollout.delete(desk.database, images, update)

    on_registry(_told(work), protocol)
    output.deleted("update", update, 0, as_json=as_json)


@app.command()
def sweep(protocol: Protocol = "ioto", as_json: Json = False) -> None:
    """Delete images that no update has: their product was deleted, or their publisher was interrupted."""

    async def work(desk: Desk) -> int:
        from provisioning import rollout

        async with _images(desk) as images:
            return await rollout.sweep(desk.database, images)

    count = on_registry(_told(work), protocol)
    if as_json:
        output.print_json({"outcome": "deleted", "type": "image", "images": count})
    else:
        print(f"deleted {output.counted(count, 'image')}")


def described(update: "Update") -> dict[str, Any]:
    """The fields of an update as commands show them."""
    return {
        "update": update.name, "product": update.product, "version": update.version,
        "state": "stopped" if update.stopped_at else "live", "stopped_at": update.stopped_at,
        "why_stopped": update.why_stopped, "policy": update.policy, "percentage": update.percentage,
        "max_devices": update.max_devices, "rate": write_rate(update.rate, update.rate_period), "test": update.test,
        "offered": update.offered, "succeeded": update.succeeded, "failed": update.failed, "file": update.file,
        "size": update.size, "checksum": update.checksum, "created_at": update.created_at,
    }  # fmt: skip


def read_rate(text: str | None) -> tuple[int | None, int]:
    """Devices and the seconds within which they may be offered an update; a bare number is per hour.

    Raises:
        typer.BadParameter: it is no rate.
    """
    if text is None:
        return None, PERIODS["h"]
    found = RATE.fullmatch(text)
    if not found:
        raise typer.BadParameter("a rate is a number of devices and a time: 100/h, 5/m", param_hint="--rate")
    return int(found[1]), PERIODS[found[2] or "h"]


def write_rate(rate: int | None, period: int) -> str | None:
    units = {seconds: unit for unit, seconds in PERIODS.items()}
    return None if rate is None else f"{rate}/{units.get(period, f'{period} s')}"


def _images(desk: Desk) -> Any:
    from provisioning.images import open_images

    return open_images(desk.settings)


def _told(work: Callable[[Desk], Any]) -> Callable[[Desk], Any]:
    """The work; what is wrong with an image or its store is a Failure."""

    async def told(desk: Desk) -> Any:
        from provisioning.images import ImageError

        try:
            return await work(desk)
        except ImageError as error:
            raise Failure(str(error)) from error

    return told


@contextmanager
def _progress(image: Path) -> Iterator[Callable[[int], None]]:
    """Shows how much of the image is stored; what it gives may be called from any thread."""
    from provisioning.images import ImageError

    total = image.stat().st_size if image.is_file() else 0
    with output.progress(f"storing {output.clean(image.name)}") as bar:
        task = bar.add_task("", total=total, done="")
        stored, ended = 0, False

        def advance(count: int) -> None:
            nonlocal stored
            if ended:  # whoever asked has left: the thread that copies need not go on
                raise ImageError("interrupted")
            stored += count
            bar.update(task, completed=stored, done=f"{stored / MEGABYTE:,.1f} of {total / MEGABYTE:,.1f} MB")

        try:
            yield advance
        finally:
            ended = True
