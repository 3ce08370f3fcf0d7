# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""`gatehouse simulate tencent`."""

import secrets
from typing import TYPE_CHECKING, Annotated, Final

import typer

from provisioning.cli import simulated
from provisioning.cli.options import Json
from provisioning.cli.run import Desk, Failure, on_registry

if TYPE_CHECKING:
    from provisioning.cli.simulation import Report
    from provisioning.cli.simulation_tencent import Policy
    from provisioning.settings import Settings

ASKS: Final = 3
"""Registrations of each device."""
SHARE: Final = 0.75
"""Of a rate limit: others register too."""


def tencent(
    *,
    count: simulated.Count = 10,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Devices that start in a second; 0: as fast as possible. What the limits in \\[tencent] "
            "allow when not given.",
        ),
    ] = None,
    concurrency: simulated.Concurrency = 50,
    host: simulated.Host = None,
    http_port: simulated.Port = None,
    mqtt_port: simulated.Port = None,
    product: Annotated[str, typer.Option(help="Product of the devices.")] = "DEMOMETER1",
    product_secret: simulated.Secret = None,
    reregister: Annotated[
        str | None,
        typer.Option(help="What a device that has connected gets: deny, same or rotate. Settings know when not given."),
    ] = None,
    timeout: simulated.Timeout = 10.0,
    keep: simulated.Keep = False,
    as_json: Json = False,
) -> None:
    """Let Tencent devices register, log in, post, register again; check every answer. Exit code 1 on a wrong one.

    Works on the registry of the service: it takes the product from there; the devices, named sim-…, are deleted at the
    end.
    """
    stated = None if reregister is None else _policy(reregister)

    async def work(desk: Desk) -> "Report":
        from provisioning.cli.simulation import Pace
        from provisioning.cli.simulation_tencent import STEPS, Plan

        settings = desk.settings
        plan = Plan(
            http=simulated.http_url(settings, host, http_port), mqtt=simulated.mqtt_at(settings, host, mqtt_port),
            product=product, secret=await _product_secret(desk, product, given=product_secret),
            again=stated or settings.tencent.reregister,
        )  # fmt: skip
        pace = Pace(allowed(settings) if rate is None else rate, concurrency, timeout)
        run = f"sim-{secrets.token_hex(3)}"
        fleet = [f"{run}-{n:04}" for n in range(count)]
        try:
            return await simulated.watched(plan.live, fleet, STEPS, pace)
        finally:
            if not keep:
                simulated.told_deleted(await simulated.delete_by_keys(desk, product, fleet))

    simulated.finish(on_registry(work, "tencent"), as_json=as_json)


def allowed(settings: "Settings") -> float:
    """Devices that may start in a second, so that none is refused for coming too fast; 0: any number."""
    limits = [limit for limit in (settings.tencent.rate_per_address, settings.tencent.rate_per_product) if limit]
    return SHARE * min(limits) / ASKS if limits else 0.0


def _policy(text: str) -> "Policy":
    match text:
        case "deny" | "same" | "rotate":
            return text
        case _:
            raise typer.BadParameter("--reregister must be deny, same or rotate")


async def _product_secret(desk: Desk, key: str, *, given: str | None) -> str:
    """The product's secret, if devices with keys can register by themselves."""
    from provisioning.store import products

    async with desk.database.read() as tx:
        found = await products.find(tx, desk.vendor.name, key)
    if found is None:
        raise Failure(f"there is no product {key}: load the demo fleet, or name one with --product")
    if not (found.dynamic_activation and found.auto_create):
        raise Failure(f"product {key} does not let devices register by themselves: `gatehouse product set {key} "
                      "--protocol tencent --dynamic-activation --auto-create`")  # fmt: skip
    if found.certificate_login:
        raise Failure(f"the devices of product {key} have certificates: simulated ones have keys")
    return found.secret if given is None else given
