# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""`gatehouse simulate enos`."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from provisioning.cli import output, simulated
from provisioning.cli.options import Json
from provisioning.cli.run import Desk, Failure, on_registry

if TYPE_CHECKING:
    from provisioning.cli.simulation import Report
    from provisioning.cli.simulation_enos import Plan


def enos(
    *,
    count: simulated.Count = 10,
    rate: Annotated[float, typer.Option(min=0, help="Devices that start in a second; 0: as fast as possible.")] = 0.0,
    concurrency: simulated.Concurrency = 50,
    mix: Annotated[float, typer.Option(min=0, max=1, help="Share of devices that activate dynamically.")] = 0.5,
    host: simulated.Host = None,
    http_port: simulated.Port = None,
    mqtt_port: simulated.Port = None,
    group: Annotated[str, typer.Option(help="Enrolment group of the devices that bootstrap.")] = "demo-line",
    group_password: simulated.Secret = None,
    product: Annotated[str, typer.Option(help="Product of the devices that activate.")] = "demopump",
    product_secret: simulated.Secret = None,
    timeout: simulated.Timeout = 10.0,
    keep: simulated.Keep = False,
    as_json: Json = False,
) -> None:
    """Let EnOS devices bootstrap, activate, log in and post, and check every answer. Exit code 1 on a wrong one.

    Works on the registry of the service: it takes group and product from there, and adds the devices that activate,
    named sim-…, which are deleted at the end.
    """

    async def work(desk: Desk) -> "Report":
        from provisioning.cli.simulation import Pace
        from provisioning.cli.simulation_enos import STEPS, Plan, Road

        run = f"sim-{secrets.token_hex(3)}"
        fleet = {
            f"{run}-{n:04}": Road.ACTIVATION if int((n + 1) * mix) > int(n * mix) else Road.BOOTSTRAP
            for n in range(count)
        }
        roads = set(fleet.values())
        group_secret = await _password(desk, group, given=group_password) if Road.BOOTSTRAP in roads else ""
        secret = await _product_secret(desk, product, given=product_secret) if Road.ACTIVATION in roads else ""
        plan = Plan(
            http=simulated.http_url(desk.settings, host, http_port),
            mqtt=simulated.mqtt_at(desk.settings, host, mqtt_port), follow=host is None and mqtt_port is None,
            group=group, password=group_secret, product=product, secret=secret, roads=fleet,
        )  # fmt: skip
        async with _registered(desk, plan, keep=keep):
            return await simulated.watched(plan.live, list(fleet), STEPS, Pace(rate, concurrency, timeout))

    simulated.finish(on_registry(work), as_json=as_json)


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
async def _registered(desk: Desk, plan: "Plan", *, keep: bool) -> AsyncIterator[None]:
    """Add the devices that activate; at the end delete the whole fleet, however far it came."""
    from provisioning.cli.simulation_enos import Road
    from provisioning.core import load

    keys = [name for name, road in plan.roads.items() if road is Road.ACTIVATION]
    serials = [name for name, road in plan.roads.items() if road is Road.BOOTSTRAP]
    try:
        for part in simulated.chunks(keys):
            async with desk.database.begin() as tx:
                await load.put_devices(tx, [desk.device(product=plan.product, key=key) for key in part])
        if keys:
            added = f"device {keys[0]}" if len(keys) == 1 else f"{len(keys):,} devices {_common(keys)}…"
            output.note(f"added {added} to product {plan.product}")
        yield
    finally:
        if not keep:
            count = await simulated.delete_by_keys(desk, plan.product, keys)
            simulated.told_deleted(count + await simulated.delete_by_serials(desk, plan.group, serials))


def _common(names: list[str]) -> str:
    """What they all begin with: their numbers are no row, others of the fleet take the other road."""
    return f"{names[0].rpartition('-')[0]}-"
