# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""`gatehouse simulate ioto`."""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from provisioning.cli import simulated
from provisioning.cli.options import Json, product_key
from provisioning.cli.run import Desk, Failure, on_registry

if TYPE_CHECKING:
    from provisioning.cli.simulation import Report

PROTOCOL: Final = "ioto"


def ioto(
    *,
    count: simulated.Count = 10,
    rate: Annotated[float, typer.Option(min=0, help="Devices that start in a second; 0: as fast as possible.")] = 0.0,
    concurrency: simulated.Concurrency = 20,
    host: simulated.Host = None,
    http_port: simulated.Port = None,
    mqtts_port: simulated.Port = None,
    product: Annotated[str, typer.Option(help="Product of the devices: its token or its key.")] = "demo-sensor-token",
    ca: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False,
            help="PEM file of the authorities whose servers the devices trust; those of the registry when not given.",
        ),
    ] = None,
    timeout: simulated.Timeout = 10.0,
    keep: simulated.Keep = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Let Ioto agents register, be claimed, connect by certificate, look for updates. Exit code 1 on a wrong answer.

    Works on the registry of the service: it takes the product from there and claims the devices, named SIM-…, which are
    deleted at the end.
    """
    key = product_key(PROTOCOL, product)

    async def work(desk: Desk) -> "Report":
        from provisioning.cli.simulation import Pace
        from provisioning.cli.simulation_ioto import STEPS, Plan

        async def claim(name: str) -> None:
            await _claim(desk, name)

        settings = desk.settings
        plan = Plan(
            http=simulated.http_url(settings, host, http_port), mqtts=simulated.mqtts_at(settings, host, mqtts_port),
            anchors=ca.read_text("utf-8", "replace") if ca else await _anchors(desk),
            token=await _token(desk, key), claim=claim,
        )  # fmt: skip
        run = f"SIM-{secrets.token_hex(3).upper()}"
        fleet = [f"{run}-{n:04}" for n in range(count)]
        try:
            return await simulated.watched(plan.live, fleet, STEPS, Pace(rate, concurrency, timeout))
        finally:
            if not keep:
                simulated.told_deleted(await simulated.delete_by_keys(desk, key, fleet))

    simulated.finish(on_registry(work, PROTOCOL), as_json=as_json)


async def _token(desk: Desk, key: str) -> str:
    from provisioning.store import products

    async with desk.database.read() as tx:
        found = await products.find(tx, PROTOCOL, key)
    if found is None:
        raise Failure("there is no such product: load the demo fleet, or name one with --product")
    return found.secret


async def _anchors(desk: Desk) -> str:
    from datetime import UTC, datetime

    from provisioning.core import pki
    from provisioning.store import authorities

    async with desk.database.read() as tx:
        return pki.write_pem(*(each.certificate for each in await authorities.trusted(tx, datetime.now(UTC))))


async def _claim(desk: Desk, name: str) -> None:
    from provisioning.core import claims
    from provisioning.protocols.ioto.http import claim_of

    async with desk.database.begin() as tx:
        await claims.claim(tx, await claims.device(tx, PROTOCOL, name), claim_of(desk.settings.ioto, "", ""))
