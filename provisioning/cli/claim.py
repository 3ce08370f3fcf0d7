# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""`gatehouse claim` and `gatehouse release`: which account a device belongs to.

Each holds on a running service at once: a device that polls gets its token, a released one loses its session.
"""

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from provisioning.cli import output
from provisioning.cli.options import Json, Yes
from provisioning.cli.run import Desk, Failure, on_registry

if TYPE_CHECKING:
    from provisioning.model.claim import Claim
    from provisioning.model.registry import Device
    from provisioning.store.database import Tx

PROTOCOL: Final = "ioto"

Id = Annotated[str, typer.Argument(metavar="ID", help="The device's claim id.")]
Account = Annotated[str | None, typer.Option(help="Whose the device is; the settings' account when not given.")]
Cloud = Annotated[str | None, typer.Option(help="Name of its cloud; the settings know when not given.")]
CloudKind = Annotated[str | None, typer.Option(help="hosted or dedicated; as --cloud.")]
Region = Annotated[str | None, typer.Option(help="Of its cloud; as --cloud.")]
Confirm = Annotated[bool, typer.Option("--confirm", help="Let a claimed device that asks have another token.")]
Show = Annotated[bool, typer.Option("--show", help="Show whose it is, and change nothing.")]


def claim(
    device: Id,
    *,
    account: Account = None,
    cloud: Cloud = None,
    cloud_type: CloudKind = None,
    cloud_region: Region = None,
    confirm: Confirm = False,
    show: Show = False,
    as_json: Json = False,
) -> None:
    """Give a device to an account: when it asks next, it gets its token. Safe to repeat."""
    stated = {"accountId": account, "cloudType": cloud_type, "cloudName": cloud, "cloudRegion": cloud_region}
    if (confirm or show) and (any(stated.values()) or (confirm and show)):
        raise typer.BadParameter("--confirm and --show go alone: they claim nothing")

    async def work(desk: Desk) -> "dict[str, object]":
        from provisioning.core import claims

        wanted = _wanted(desk, device, stated)
        async with desk.database.begin() as tx:
            found = await _find(tx, device)
            if confirm:
                from datetime import UTC, datetime

                await claims.confirm(tx, found, now=datetime.now(UTC))
            elif not show:
                await claims.claim(tx, found, wanted)
            return await _described(tx, device)

    fields = on_registry(work, PROTOCOL)
    if show or as_json:
        output.show(fields, as_json=as_json)
    elif confirm:
        print(f"{output.clean(device)} may have another token")
    else:
        print(f"{output.clean(device)} belongs to account {output.clean(fields['account'])}")


def release(device: Id, yes: Yes = False, as_json: Json = False) -> None:
    """Take a device from its account: its tokens and certificates are revoked, it erases itself and registers again."""
    if not output.confirm(f"Release device {output.clean(device)}?", yes=yes):
        raise typer.Exit(1)

    async def work(desk: Desk) -> "dict[str, object]":
        from datetime import UTC, datetime

        from provisioning.core import claims

        async with desk.database.begin() as tx:
            await claims.release(tx, await _find(tx, device), now=datetime.now(UTC))
            return await _described(tx, device)

    fields = on_registry(work, PROTOCOL)
    if as_json:
        output.print_json(fields)
    else:
        print(f"{output.clean(device)} is released")


def _wanted(desk: Desk, device: str, stated: dict[str, Any]) -> "Claim":
    """Raises: Failure, Refusal MALFORMED: a value is not of its form."""
    from dataclasses import replace

    from provisioning.model.claim import ClaimableSpec
    from provisioning.protocols.ioto.http import claim_of

    if "" in stated.values():
        raise Failure("account and cloud must not be empty")
    usual = claim_of(desk.settings.ioto, stated["accountId"] or "", stated["cloudName"] or "")
    row = {name: value for name, value in stated.items() if value is not None}
    spec = desk.vendor.read_row(
        {"type": "device", "protocol": PROTOCOL, "id": device, "productToken": "any", "accountId": usual.account} | row
    )
    assert isinstance(spec, ClaimableSpec)
    return replace(
        usual, cloud_type=spec.cloud_type or usual.cloud_type, cloud_region=spec.cloud_region or usual.cloud_region
    )


async def _find(tx: "Tx", device: str) -> "Device":
    """Raises: Refusal UNKNOWN."""
    from provisioning.core import claims

    return await claims.device(tx, PROTOCOL, device)


async def _described(tx: "Tx", device: str) -> "dict[str, object]":
    from provisioning.store import claims

    found = await _find(tx, device)
    held = (await claims.of(tx, [found.id])).get(found.id)
    return {
        "id": found.key, "product": found.product, "state": str(found.state), "disabled": found.disabled,
        "account": held.account if held else "", "cloud": held.cloud_name if held else "",
        "cloud_type": str(held.cloud_type) if held else "", "cloud_region": held.cloud_region if held else "",
        "asks_for_token": held is not None and held.asked_at is not None,
    }  # fmt: skip
