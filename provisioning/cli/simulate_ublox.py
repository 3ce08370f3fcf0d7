# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""`gatehouse simulate ublox`."""

import json
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final

import typer

from provisioning.cli import simulated
from provisioning.cli.options import Json
from provisioning.cli.run import Desk, Failure, on_registry

if TYPE_CHECKING:
    from provisioning.cli.simulation import Report
    from provisioning.cli.simulation_ublox_checks import Module

PROTOCOL: Final = "ublox"
DEMO_KEY: Final = "d3e0acc0-0000-4000-8000-000000000001"
DEMO_SECRET: Final = "demoAccountSecret000000000000001"  # noqa: S105 - public, and good on this machine alone


def ublox(
    *,
    count: simulated.Count = 10,
    rate: Annotated[float, typer.Option(min=0, help="Modules that start in a second; 0: as fast as possible.")] = 0.0,
    concurrency: simulated.Concurrency = 20,
    host: simulated.Host = None,
    http_port: simulated.Port = None,
    account: Annotated[str, typer.Option(help="API key of the account of the modules.")] = DEMO_KEY,
    secret: Annotated[
        str | None, typer.Option(help="API secret of the account; must be stated, but for the demo fleet's.")
    ] = None,
    clones: Annotated[int, typer.Option(min=0, help="One of so many modules has a clone; 0: none has.")] = 5,
    timeout: simulated.Timeout = 10.0,
    keep: simulated.Keep = False,
    as_json: Json = False,
) -> None:
    """Let modules bootstrap, be provisioned, install certificates, send encrypted data. Exit code 1 on a wrong answer.

    Works on the registry of the service: the modules are created there, and deleted at the end with their root CA. What
    an application does goes over the API, at the requests a second of the settings.
    """
    if secret is None and account == DEMO_KEY:
        secret = DEMO_SECRET

    async def work(desk: Desk) -> "Report":
        from provisioning.cli.simulation import Pace
        from provisioning.cli.simulation_ublox import STEPS, Application, Plan, Turns

        await _find(desk, account)
        if secret is None:
            raise Failure("state the API secret of the account with --secret")
        base = simulated.http_url(desk.settings, host, http_port)
        run, fleet = new_fleet(count)
        plan = Plan(
            http=base, application=Application(base, account, secret, Turns(desk.settings.ublox.rate)), fleet=fleet,
            ca_name=f"sim-{run}", clones=clones,
        )  # fmt: skip
        try:
            await _create(desk, account, fleet)
            return await simulated.watched(plan.live, list(fleet), STEPS, Pace(rate, concurrency, timeout))
        finally:
            if not keep:
                simulated.told_deleted(await simulated.delete_by_keys(desk, account, list(fleet)))
                await _delete_root(desk, account, plan.ca_name)

    simulated.finish(on_registry(work, PROTOCOL), as_json=as_json)


def new_fleet(count: int) -> tuple[str, Mapping[str, "Module"]]:
    """The name of the run, and its modules by uid."""
    from provisioning.cli.simulation_ublox_checks import Module

    run = f"{secrets.randbits(28):07x}"
    fleet = [
        Module(f"5349{run}{number:05x}", number, secrets.token_bytes(32), f"SIM{run}{number:05x}")
        for number in range(count)
    ]
    return run, {each.uid: each for each in fleet}


async def _find(desk: Desk, account: str) -> None:
    """Raises: Failure."""
    from provisioning.store import accounts

    async with desk.database.read() as tx:
        if await accounts.find(tx, PROTOCOL, account) is None:
            raise Failure("there is no such account: load the demo fleet, or name one with --account")


async def _create(desk: Desk, account: str, fleet: Mapping[str, "Module"]) -> None:
    """Raises: Failure."""
    from provisioning.core.importing import import_rows

    rows = [
        json.dumps({"type": "device", "protocol": PROTOCOL, "apiKey": account, "rotPublicUID": each.uid,
                    "rootSecret": each.secret.hex(), "deviceSerialNumber": each.device_serial})
        for each in fleet.values()
    ]  # fmt: skip
    summary = await import_rows(desk.database, rows, {PROTOCOL: desk.vendor.read_row})
    if summary.failed:
        raise Failure(f"the modules cannot be created: {summary.first_failure}")


async def _delete_root(desk: Desk, account: str, name: str) -> None:
    """If the application came to create it."""
    from datetime import UTC, datetime

    from provisioning.core import accounts as core
    from provisioning.core import roots
    from provisioning.store import roots as stored

    async with desk.database.begin() as tx:
        of = await core.find(tx, PROTOCOL, account)
        root = await stored.lock(tx, of.id, name)
        if root is not None:
            await roots.delete(tx, root, now=datetime.now(UTC))
