"""The demo fleet: loaded into an empty registry for a newcomer, kept on this machine because its secrets are public."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from provisioning.core.importing import ReadRow, Summary, import_rows
from provisioning.model.spec import ProductSpec, Spec
from provisioning.opening import StartError
from provisioning.protocols import VendorProtocol
from provisioning.settings import Settings, is_loopback
from provisioning.store import products
from provisioning.store.database import Database


async def load(database: Database, settings: Settings, vendors: tuple[VendorProtocol, ...]) -> Summary | None:
    """Load the demo fleet of the settings into an empty registry.

    Raises:
        StartError: the file cannot be read, a row of it is wrong, or it would be reached from beyond this machine.
    """
    file = settings.demo
    if file is None:
        return None
    try:
        lines = await asyncio.to_thread(lambda: file.read_text("utf-8").split("\n"))
    except OSError as error:
        raise StartError(f"demo: cannot read {file}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise StartError(f"demo: cannot read {file}: it is not UTF-8") from error
    async with database.read() as tx:
        if not await products.registry_is_empty(tx):
            return None
    if outside := _outside(settings):
        raise StartError(f"{outside}.host would leave this machine, and the secrets of the demo fleet are public")
    summary = await import_rows(database, lines, {vendor.name: _as_demo(vendor.read_row) for vendor in vendors})
    if summary.failed:
        raise StartError(f"demo: {file}: {summary.first_failure}")
    return summary


def _as_demo(read: ReadRow) -> ReadRow:
    """Whatever its rows say: the secrets in this file are public."""

    def read_demo(row: dict[str, object]) -> Spec:
        spec = read(row)
        return replace(spec, demo=True) if isinstance(spec, ProductSpec) else spec

    return read_demo


async def guard(database: Database, settings: Settings) -> None:
    """With the demo fleet, nothing may listen beyond this machine.

    Raises:
        StartError: something would.
    """
    outside = _outside(settings)
    if not outside:
        return
    async with database.read() as tx:
        keys = await products.demo_keys(tx)
    if keys:
        raise StartError(
            f"{outside}.host would leave this machine while the demo fleet is loaded, whose secrets are public: "
            f"run `{removal(keys)}` first, or keep 127.0.0.1"
        )


def removal(keys: Iterable[tuple[str, str]]) -> str:
    """The command that deletes the demo fleet; `keys`: protocols and keys of its products."""
    return " && ".join(f"gatehouse product delete {key} --protocol {protocol} --cascade" for protocol, key in keys)


def _outside(settings: Settings) -> str:
    """The first listener that would be reached from beyond this machine; empty: none."""
    listeners = ("mqtt", "http", "mqtts", "https")
    return next((name for name in listeners if not is_loopback(getattr(settings, name).host)), "")
