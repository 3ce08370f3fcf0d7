# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""`gatehouse serve` and `gatehouse migrate`."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from provisioning.cli import output
from provisioning.cli.options import Json
from provisioning.cli.run import announce_new, raise_file_limit, run

if TYPE_CHECKING:
    from provisioning.settings import Settings
    from provisioning.store.migrate import Migration


def serve(
    demo: Annotated[
        Path | None, typer.Option(help="NDJSON to load into an empty registry.", show_default=False)
    ] = None,
) -> None:
    """Serve devices until SIGINT or SIGTERM; a second signal does not wait for anything."""

    async def work(settings: "Settings") -> None:
        from provisioning import log
        from provisioning.app import gatehouse
        from provisioning.cli.tour import tour
        from provisioning.model.refusal import Refusal

        log.configure(settings.log.format, settings.log.level)
        raise_file_limit()
        stop = _stop_signal()
        announce_new(settings)
        async with gatehouse(settings) as running:
            with suppress(Refusal):  # a tour is not worth the service: the database may be away by now
                if text := await tour(running):
                    output.note(text)
            await stop.wait()

    run(work, **({} if demo is None else {"demo": demo}))


def _stop_signal() -> asyncio.Event:
    """Set by the first SIGINT or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)
    return stop


def migrate(as_json: Json = False) -> None:
    """Bring the database up to this release; `serve` and all other commands do so too."""
    applied = run(_migrate)
    if as_json:
        output.print_json({"applied": [{"number": each.number, "name": each.name} for each in applied]})
        return
    for each in applied:
        print(f"applied {each.number:04} {each.name}")
    if not applied:
        print("nothing to apply")


async def _migrate(settings: "Settings") -> "list[Migration]":
    from provisioning.opening import migrated

    announce_new(settings)
    async with migrated(settings) as (_, _, applied):
        return applied
