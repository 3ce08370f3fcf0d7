# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""`gatehouse cert`: the inventory of certificates. `cert_issue` has what makes new ones.

What is revoked or held is refused by a running service at once, and its session ends: the database tells it.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from provisioning.cli import cert_issue, files, output
from provisioning.cli.certificates import (
    Issuer,
    SerialNumber,
    about,
    contents,
    described_certificate,
    find_authority,
    find_certificate,
    now,
    titles,
)
from provisioning.cli.options import Json, Limit, Protocol, Yes
from provisioning.cli.paging import PAGE, everything
from provisioning.cli.run import Desk, on_registry
from provisioning.model.certificate import Revocation, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from datetime import datetime

    from provisioning.model.certificate import Certificate
    from provisioning.model.registry import Product
    from provisioning.store.certificates import Filter
    from provisioning.store.database import Tx

app = typer.Typer(help="Certificates of devices and servers, by serial number.", no_args_is_help=True)
cert_issue.add_to(app)
COLUMNS: Final = ("serial", "authority", "product", "device", "status", "expires")
WRAPPED: Final = ("authority", "product", "device")
"""A serial number is pasted: it stays whole."""


# --- look ------------------------------------------------------------------------------------------------------------


@app.command("list")
def list_(
    *,
    product: Annotated[str | None, typer.Option(help="Of devices of this product.")] = None,
    device: Annotated[str | None, typer.Option(help="Of this device of the product.")] = None,
    authority: Annotated[
        str | None, typer.Option(metavar="NAME[-GENERATION]", help="Issued by it; by the latest, unless stated.")
    ] = None,
    status: Annotated[
        Literal["valid", "held", "revoked", "expired"] | None, typer.Option(help="As it stands now.")
    ] = None,
    expires_within: Annotated[
        int | None, typer.Option(metavar="DAYS", min=1, max=36_500, help="Not expired yet, but within so many days.")
    ] = None,
    limit: Limit = None,
    protocol: Protocol = "enos",
    as_json: Json = False,
) -> None:
    """List certificates, oldest first."""
    if device is not None and product is None:
        raise typer.BadParameter("--device needs its --product")
    if status == "expired" and expires_within is not None:
        raise typer.BadParameter("what is expired does not expire within some days")
    at = now()

    async def work(desk: Desk) -> None:
        from provisioning.core import registry
        from provisioning.store.certificates import Filter

        with about("certificate"):
            async with desk.database.read() as tx:
                issuers = await titles(tx)
                of_device = await registry.device(tx, protocol, product, device) if product and device else None
                of_product = await registry.product(tx, protocol, product) if product else None
                issuer = await find_authority(tx, authority) if authority else None
        which = Filter(
            authority_id=issuer.id if issuer else None, device_id=of_device.id if of_device else None,
            status=Status.VALID if status == "expired" else Status(status) if status else None,
            expires_from=at if status == "valid" or expires_within else None,
            expires_before=at if status == "expired" else at + timedelta(days=expires_within)
            if expires_within else None,
        )  # fmt: skip
        also = None if of_device else of_product

        def described(certificate: "Certificate") -> dict[str, Any]:
            shown = described_certificate(certificate, issuers, at)
            return shown if as_json else shown | {"expires": f"{certificate.not_after:%Y-%m-%d}"}

        await everything(
            desk, COLUMNS, lambda tx, last, n: _page(tx, which, also, last, n),
            limit=limit, as_json=as_json, describe=described, wrapped=WRAPPED,
        )  # fmt: skip

    on_registry(work, protocol)


async def _page(
    tx: "Tx", which: "Filter", product: "Product | None", last: "Certificate | None", size: int
) -> "list[Certificate]":
    """The next `size` that are of the product, too."""
    from provisioning.store import certificates

    after = last.id if last else 0
    if product is None:
        return await certificates.page(tx, which, after, size)
    of = (product.protocol, product.key)
    found: list[Certificate] = []
    while len(found) < size:
        read = await certificates.page(tx, which, after, PAGE)
        found += [each for each in read if (i := each.identity) and (i.protocol, i.product) == of]
        if len(read) < PAGE:
            break
        after = read[-1].id
    return found[:size]


@app.command()
def show(
    serial: SerialNumber,
    pem: Annotated[bool, typer.Option("--pem", help="It and those above it, and nothing else.")] = False,
    issuer: Issuer = None,
    as_json: Json = False,
) -> None:
    """Show a certificate."""

    async def work(desk: Desk) -> "tuple[dict[str, Any], str]":
        from provisioning.core import certify
        from provisioning.store import authorities, certificates

        with about(f"certificate {serial}"):
            async with desk.database.read() as tx:
                found = await find_certificate(tx, serial, issuer)
                successor = await certificates.by_id(tx, found.superseded_by) if found.superseded_by else None
                authority = await authorities.by_id(tx, found.authority_id)
                assert authority is not None
                fields = described_certificate(found, await titles(tx), now()) | contents(found)
                fields["superseded_by"] = successor.serial if successor else None
                return fields, certify.bundle(authority, found)

    fields, text = on_registry(work)
    if pem:
        print(text, end="")
    else:
        output.show(fields | ({"certificate": text} if as_json else {}), as_json=as_json)


@app.command()
def export(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to; - is stdout.")],
    pem: Annotated[bool, typer.Option("--pem", help="The certificates alone, as PEM.")] = False,
) -> None:
    """Write the inventory as NDJSON, each certificate with what is known of it. There is no private key in it."""

    async def work(desk: Desk) -> int:
        count = 0
        with files.target(file) as out, output.progress("export") as bar:
            task = bar.add_task("export", total=None, done="")
            async for lines in _exported(desk, pem=pem):
                files.write_to(out, file, "".join(lines))
                count += len(lines)
                bar.update(task, done=output.counted(count, "certificate"))
        return count

    count = on_registry(work)
    if file != files.STANDARD:
        output.note(f"{output.counted(count, 'certificate')} in {file}")


async def _exported(desk: Desk, *, pem: bool) -> "AsyncIterator[list[str]]":
    """The inventory as it stands at this moment, a page at a time."""
    from provisioning.core import pki
    from provisioning.store import certificates
    from provisioning.store.certificates import Filter

    at, last = now(), 0
    async with desk.database.snapshot() as tx:
        issuers = await titles(tx)
        while page := await certificates.page(tx, Filter(), last, PAGE):
            if pem:
                yield [pki.write_pem(each.der) for each in page]
            else:
                yield [
                    output.to_json(
                        described_certificate(each, issuers, at) | contents(each)
                        | {"certificate": pki.write_pem(each.der)}
                    ) + "\n"
                    for each in page
                ]  # fmt: skip
            last = page[-1].id


# --- revoke ----------------------------------------------------------------------------------------------------------


@app.command()
def revoke(
    serial: SerialNumber,
    reason: Annotated[Revocation, typer.Option(help="As the CRL will say.")] = Revocation.UNSPECIFIED,
    yes: Yes = False,
    issuer: Issuer = None,
    as_json: Json = False,
) -> None:
    """Revoke a certificate for good; the session of a device that uses it ends."""
    if not output.confirm(f"Revoke certificate {serial} for good?", yes=yes):
        raise typer.Exit(1)

    async def step(tx: "Tx", which: "Certificate", at: "datetime") -> "Certificate":
        from provisioning.core import inventory

        return await inventory.revoke(tx, which, now=at, reason=reason)

    _step(serial, issuer, step, "is revoked", as_json=as_json)


@app.command()
def hold(serial: SerialNumber, issuer: Issuer = None, as_json: Json = False) -> None:
    """Do not trust a certificate for now: its device is refused until `release`."""

    async def step(tx: "Tx", which: "Certificate", at: "datetime") -> "Certificate":
        from provisioning.core import inventory

        return await inventory.hold(tx, which, now=at)

    _step(serial, issuer, step, "is held", as_json=as_json)


@app.command()
def release(serial: SerialNumber, issuer: Issuer = None, as_json: Json = False) -> None:
    """End the hold of a certificate."""

    async def step(tx: "Tx", which: "Certificate", at: "datetime") -> "Certificate":
        from provisioning.core import inventory

        return await inventory.release(tx, which, now=at)

    _step(serial, issuer, step, "is valid again", as_json=as_json)


def _step(
    serial: str,
    issuer: str | None,
    step: "Callable[[Tx, Certificate, datetime], Awaitable[Certificate]]",
    done: str,
    *,
    as_json: bool,
) -> None:
    """Find the certificate, do the step in the same transaction, and say what came of it."""

    async def work(desk: Desk) -> dict[str, Any]:
        at = now()
        with about(f"certificate {serial}"):
            async with desk.database.begin() as tx:
                stepped = await step(tx, await find_certificate(tx, serial, issuer), at)
                return described_certificate(stepped, await titles(tx), at)

    fields = on_registry(work)
    if as_json:
        output.print_json(fields)
    else:
        print(f"{fields['serial']} {done}")
