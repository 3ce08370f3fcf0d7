# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""`gatehouse simulate`: a fleet of real devices against a running service, timed and checked."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Final

import typer

from provisioning.cli import output
from provisioning.cli.options import Json
from provisioning.cli.run import FAILED, Desk, Failure, on_registry, raise_file_limit
from provisioning.cli.sign import mqtt_address

if TYPE_CHECKING:
    from provisioning.cli.simulation import Plan, Report, Road
    from provisioning.settings import Settings

app = typer.Typer(help="Real devices over the wire, timed and checked.", no_args_is_help=True)
CHUNK: Final = 200


@app.callback()
def _of() -> None:
    """Real devices over the wire, timed and checked."""


@app.command()
def enos(
    *,
    count: Annotated[int, typer.Option(min=1, help="How many devices.")] = 10,
    rate: Annotated[float, typer.Option(min=0, help="Devices that start in a second; 0: as fast as possible.")] = 0.0,
    concurrency: Annotated[int, typer.Option(min=1, max=5_000, help="Devices at the same time.")] = 50,
    mix: Annotated[float, typer.Option(min=0, max=1, help="Share of devices that activate dynamically.")] = 0.5,
    host: Annotated[str | None, typer.Option(help="Where the service is; settings know when not given.")] = None,
    http_port: Annotated[int | None, typer.Option(min=1, max=65_535, help="As --host.")] = None,
    mqtt_port: Annotated[int | None, typer.Option(min=1, max=65_535, help="As --host.")] = None,
    group: Annotated[str, typer.Option(help="Enrolment group of the devices that bootstrap.")] = "demo-line",
    group_password: Annotated[str | None, typer.Option(help="The registry knows when not given.")] = None,
    product: Annotated[str, typer.Option(help="Product of the devices that activate.")] = "demopump",
    product_secret: Annotated[str | None, typer.Option(help="The registry knows when not given.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for each step of a device.")] = 10.0,
    keep: Annotated[bool, typer.Option("--keep/--no-keep", help="Keep the devices in the registry.")] = False,
    as_json: Json = False,
) -> None:
    """Let EnOS devices bootstrap, activate, log in and post, and check every answer. Exit code 1 on a wrong one.

    Works on the registry of the service: it takes group and product from there, and adds the devices that activate,
    named sim-…, which are deleted at the end.
    """

    async def work(desk: Desk) -> "Report":
        from provisioning.cli.simulation import Plan, Road, play

        raise_file_limit()
        run = f"sim-{secrets.token_hex(3)}"
        fleet = [
            (Road.ACTIVATION if int((n + 1) * mix) > int(n * mix) else Road.BOOTSTRAP, f"{run}-{n:04}")
            for n in range(count)
        ]
        roads = {road for road, _ in fleet}
        group_secret = await _password(desk, group, given=group_password) if Road.BOOTSTRAP in roads else ""
        product_secret_ = await _product_secret(desk, product, given=product_secret) if Road.ACTIVATION in roads else ""
        plan = Plan(
            http=http_url(desk.settings, host, http_port), mqtt=_mqtt(desk.settings, host, mqtt_port),
            follow=host is None and mqtt_port is None, group=group, password=group_secret, product=product,
            secret=product_secret_, timeout=timeout,
        )  # fmt: skip
        async with _registered(desk, plan, fleet, keep=keep):
            with output.progress("simulate") as bar:
                task = bar.add_task("simulate", total=count, done="")

                def on_done(report: "Report") -> None:
                    done = report.right + report.wrong
                    bar.update(task, completed=done, done=f"{done:,} of {count:,}, {report.wrong} wrong")

                return await play(plan, fleet, rate=rate, concurrency=concurrency, on_done=on_done)

    report = on_registry(work)
    print_report(report, as_json=as_json)
    if report.wrong:
        raise typer.Exit(FAILED)


def http_url(settings: "Settings", host: str | None, port: int | None) -> str:
    """Where the service is: as stated, or as the settings have it."""
    from provisioning.settings import Http

    at = host or ("127.0.0.1" if settings.http.host in {"0.0.0.0", "::", ""} else settings.http.host)  # noqa: S104 - compared
    return f"http://{f'[{at}]' if ':' in at else at}:{port or settings.http.port or Http().port}"


def _mqtt(settings: "Settings", host: str | None, port: int | None) -> tuple[str, int]:
    default_host, default_port = mqtt_address(settings)
    return host or default_host, port or default_port


async def _password(desk: Desk, key: str, *, given: str | None) -> str:
    """The group's password, if devices can get through the group by themselves."""
    from provisioning.store import groups

    async with desk.database.read() as tx:
        found = await groups.find(tx, desk.vendor.name, key)
    if found is None:
        raise Failure(f"there is no group {key}: load the demo fleet, or name one with --group")
    if not (found.auto_register and found.auto_activation and found.product):
        raise Failure(f"group {key} does not let devices in by themselves: it needs a product, --auto-register and "
                      "--auto-activation")  # fmt: skip
    return found.password if given is None else given


async def _product_secret(desk: Desk, key: str, *, given: str | None) -> str:
    from provisioning.store import products

    async with desk.database.read() as tx:
        found = await products.find(tx, desk.vendor.name, key)
    if found is None:
        raise Failure(f"there is no product {key}: load the demo fleet, or name one with --product")
    if not found.dynamic_activation:
        raise Failure(f"product {key} has no dynamic activation: `gatehouse product set {key} --dynamic-activation`, "
                      "or --mix 0")  # fmt: skip
    return found.secret if given is None else given


@asynccontextmanager
async def _registered(desk: Desk, plan: "Plan", fleet: "list[tuple[Road, str]]", *, keep: bool) -> AsyncIterator[None]:
    """Add the devices that activate; at the end delete the whole fleet, however far it came."""
    from provisioning.cli.simulation import Road
    from provisioning.core import load

    keys = [name for road, name in fleet if road is Road.ACTIVATION]
    serials = [name for road, name in fleet if road is Road.BOOTSTRAP]
    try:
        for part in _chunks(keys):
            async with desk.database.begin() as tx:
                await load.put_devices(tx, [desk.device(product=plan.product, key=key) for key in part])
        if keys:
            added = f"device {keys[0]}" if len(keys) == 1 else f"{len(keys):,} devices {_common(keys)}…"
            output.note(f"added {added} to product {plan.product}")
        yield
    finally:
        if not keep:
            count = await _delete(desk, plan, keys, serials)
            output.note(f"deleted {output.counted(count, 'simulated device')}")


def _common(names: list[str]) -> str:
    """What they all begin with: their numbers are no row, others of the fleet take the other road."""
    return f"{names[0].rpartition('-')[0]}-"


def _chunks(names: list[str]) -> list[list[str]]:
    return [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]


async def _delete(desk: Desk, plan: "Plan", keys: list[str], serials: list[str]) -> int:
    from provisioning.core import registry
    from provisioning.store import devices

    count = 0
    for by_key, names in ((True, keys), (False, serials)):
        for part in _chunks(names):
            async with desk.database.begin() as tx:
                if by_key:
                    product = await registry.product(tx, desk.vendor.name, plan.product)
                    found = await devices.by_keys(tx, product.id, part)
                else:
                    group = await registry.group(tx, desk.vendor.name, plan.group)
                    found = await devices.by_serials(tx, group, part)
                for device in found.values():
                    await registry.delete_device(tx, device)
                count += len(found)
    return count


def print_report(report: "Report", *, as_json: bool) -> None:
    """What came of a simulation: counts and times of each step, and the first wrong answers."""
    devices = report.right + report.wrong
    steps = {step: {"count": len(taken), **report.latencies(step)} for step, taken in report.steps.items()}
    if as_json:
        output.print_json({"devices": devices, "wrong": report.wrong, "seconds": round(report.seconds, 3),
                           "ms": steps, "errors": report.errors})  # fmt: skip
        return
    columns = ("step", "count", "p50", "p95", "p99", "max")
    lines = [{"p50": None, "p95": None, "p99": None, "max": None} | {"step": step} | row for step, row in steps.items()]
    output.rows(columns, lines, as_json=False, numbers=True)
    print(f"{output.counted(devices, 'device')} in {report.seconds:.1f} s, {report.wrong} wrong (times in ms)")
    for error in report.errors:
        output.note(output.clean(error))
