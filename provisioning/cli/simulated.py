# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""What `simulate` has for every vendor: options, addresses, progress, the table, and no device left behind."""

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Final

import typer

from provisioning.cli import output
from provisioning.cli.run import FAILED, Desk, raise_file_limit

if TYPE_CHECKING:
    from provisioning.cli.simulation import Life, Pace, Report
    from provisioning.model.registry import Device
    from provisioning.settings import Settings
    from provisioning.store.database import Tx

Count = Annotated[int, typer.Option(min=1, help="How many devices.")]
Concurrency = Annotated[int, typer.Option(min=1, max=5_000, help="Devices at the same time.")]
Host = Annotated[str | None, typer.Option(help="Where the service is; settings know when not given.")]
Port = Annotated[int | None, typer.Option(min=1, max=65_535, help="As --host.")]
Secret = Annotated[str | None, typer.Option(help="The registry knows when not given.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds for each step of a device.")]
Keep = Annotated[bool, typer.Option("--keep/--no-keep", help="Keep the devices in the registry.")]

CHUNK: Final = 200


def http_url(settings: "Settings", host: str | None, port: int | None) -> str:
    from provisioning.sections import Http

    at = host or ("127.0.0.1" if settings.http.host in {"0.0.0.0", "::", ""} else settings.http.host)  # noqa: S104 - compared
    return f"http://{f'[{at}]' if ':' in at else at}:{port or settings.http.port or Http().port}"


def mqtt_at(settings: "Settings", host: str | None, port: int | None) -> tuple[str, int]:
    from provisioning.cli.sign import mqtt_address

    default_host, default_port = mqtt_address(settings)
    return host or default_host, port or default_port


def mqtts_at(settings: "Settings", host: str | None, port: int | None) -> tuple[str, int] | None:
    """None: devices go where the service sends them."""
    if host is None and port is None:
        return None
    from provisioning.sections import Mqtts

    at = settings.mqtts.host
    named = host or ("127.0.0.1" if at in {"0.0.0.0", "::", ""} else at)  # noqa: S104 - compared
    return named, port or settings.mqtts.port or Mqtts().port or 18_883


async def watched(life: "Life", fleet: list[str], steps: Iterable[str], pace: "Pace") -> "Report":
    """Play, with a progress bar. As `simulation.play`."""
    from provisioning.cli.simulation import play

    raise_file_limit()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # clients that are interrupted leave callbacks behind
    with output.progress("simulate") as bar:
        task = bar.add_task("simulate", total=len(fleet), done="")

        def on_done(report: "Report") -> None:
            done = f"{report.devices:,} of {len(fleet):,}, {report.wrong} wrong"
            bar.update(task, completed=report.devices, done=done)

        return await play(life, fleet, steps, pace, on_done=on_done)


def chunks(names: list[str]) -> list[list[str]]:
    return [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]


async def delete_by_keys(desk: Desk, product: str, keys: list[str]) -> int:
    """As many as there are."""
    from provisioning.core import registry
    from provisioning.store import devices

    count = 0
    for part in chunks(keys):
        async with desk.database.begin() as tx:
            of = await registry.product(tx, desk.vendor.name, product)
            count += await _delete(tx, (await devices.by_keys(tx, of.id, part)).values())
    return count


async def delete_by_serials(desk: Desk, group: str, serials: list[str]) -> int:
    """As many as there are."""
    from provisioning.core import registry
    from provisioning.store import devices

    count = 0
    for part in chunks(serials):
        async with desk.database.begin() as tx:
            of = await registry.group(tx, desk.vendor.name, group)
            count += await _delete(tx, (await devices.by_serials(tx, of, part)).values())
    return count


async def _delete(tx: "Tx", found: Iterable["Device"]) -> int:
    from provisioning.core import registry
    from provisioning.store import devices

    fleet = sorted(found, key=lambda device: device.id)
    for device in fleet:  # all of them before the first is deleted, which locks the count of their product
        await devices.lock(tx, device)
    for device in fleet:
        await registry.delete_device(tx, device)
    return len(fleet)


def told_deleted(count: int) -> None:
    output.note(f"deleted {output.counted(count, 'simulated device')}")


def finish(report: "Report", *, as_json: bool) -> None:
    """Print it. Raises: typer.Exit 1, when an answer was wrong."""
    steps = {step: {"count": len(taken), **report.latencies(step)} for step, taken in report.steps.items()}
    if as_json:
        output.print_json({"devices": report.devices, "wrong": report.wrong, "seconds": round(report.seconds, 3),
                           "ms": steps, "errors": report.errors})  # fmt: skip
    else:
        columns = ("step", "count", "p50", "p95", "p99", "max")
        lines = [
            {"p50": None, "p95": None, "p99": None, "max": None} | {"step": step} | row for step, row in steps.items()
        ]
        output.rows(columns, lines, as_json=False, numbers=True)
        devices = output.counted(report.devices, "device")
        print(f"{devices} in {report.seconds:.1f} s, {report.wrong} wrong (times in ms)")
        for error in report.errors:
            output.note(output.clean(error))
    if report.wrong:
        raise typer.Exit(FAILED)
