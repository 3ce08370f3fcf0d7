# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""`gatehouse product`."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from provisioning.cli import output
from provisioning.cli.options import (
    Cascade,
    Json,
    Limit,
    Name,
    Protocol,
    Reveal,
    Yes,
    new_product,
    product_key,
)
from provisioning.cli.paging import everything
from provisioning.cli.run import Desk, Failure, on_registry

if TYPE_CHECKING:
    from provisioning.model.registry import Product
    from provisioning.model.spec import ProductSpec
    from provisioning.store.database import Tx

app = typer.Typer(help="Products: kinds of devices.", no_args_is_help=True)
COLUMNS: Final = ("key", "name", "dynamic_activation", "auto_create", "certificate_login", "devices", "demo")

Key = Annotated[str, typer.Argument(metavar="PRODUCT", help="Key of the product.")]
Secret = Annotated[str | None, typer.Option(help="Secret that proves devices which have none of their own.")]
Dynamic = Annotated[bool | None, typer.Option("--dynamic-activation/--no-dynamic-activation",
                                              help="Its devices may fetch their secrets, or register.")]  # fmt: skip
AutoCreate = Annotated[bool | None, typer.Option("--auto-create/--no-auto-create",
                                                 help="An unknown device is created when it asks.")]  # fmt: skip
CertificateLogin = Annotated[bool | None, typer.Option("--certificate-login/--no-certificate-login",
                                                       help="Its devices log in over TLS with a certificate of their "
                                                            "own, and not without one.")]  # fmt: skip
RegisterLimit = Annotated[int | None, typer.Option(min=0, max=1_000_000,
                                                   help="The most devices that may register themselves; "
                                                        "0: no limit.")]  # fmt: skip
ClientAuthority = Annotated[str | None, typer.Option(metavar="CA",
                                                     help="Its devices may bring certificates of this authority along "
                                                          "when they register.")]  # fmt: skip


async def _check_authority(tx: "Tx", spec: "ProductSpec") -> None:
    """A name that nobody bears would only be found out when a device is refused."""
    from provisioning.core import ca

    if spec.client_authority:
        await ca.find(tx, spec.client_authority)


@app.command()
def create(
    *,
    product: Annotated[str | None, typer.Argument(metavar="[PRODUCT]", help="Its key; made up when not given.")] = None,
    secret: Secret = None,
    name: Name = None,
    dynamic_activation: Dynamic = None,
    auto_create: AutoCreate = None,
    certificate_login: CertificateLogin = None,
    register_limit: RegisterLimit = None,
    client_authority: ClientAuthority = None,
    protocol: Protocol = "enos",
    as_json: Json = False,
) -> None:
    """Create a product, and print it with its secret."""
    named = new_product(protocol, product, secret)

    async def work(desk: Desk) -> "Product":
        from provisioning.core import load

        spec = desk.product(**{
            "name": name, "dynamic_activation": dynamic_activation, "auto_create": auto_create,
            "certificate_login": certificate_login, "register_limit": register_limit,
            "client_authority": client_authority, **named,
            "key": desk.vendor.forms.product_key() if named["key"] is None else named["key"],
        })  # fmt: skip
        async with desk.database.begin() as tx:
            await _check_authority(tx, spec)
            outcome, made = await load.put_product(tx, spec)
            if outcome is not load.Outcome.CREATED:
                raise Failure(f"there is a product {spec.key} already; `gatehouse product set` changes it")
        return made

    output.show(output.made(on_registry(work, protocol, new=True), without=("devices",)), as_json=as_json)


@app.command("list")
def list_(protocol: Protocol = "enos", limit: Limit = None, as_json: Json = False) -> None:
    """List products."""

    async def work(desk: Desk) -> None:
        from provisioning.store import products

        await everything(
            desk, COLUMNS, lambda tx, last, n: products.page(tx, protocol, (protocol, last.key if last else ""), n),
            limit=limit, as_json=as_json,
        )  # fmt: skip

    on_registry(work, protocol)


@app.command()
def show(product: Key, protocol: Protocol = "enos", reveal: Reveal = False, as_json: Json = False) -> None:
    """Show a product."""

    async def work(desk: Desk) -> "Product":
        from provisioning.core import registry

        async with desk.database.read() as tx:
            return await registry.product(tx, protocol, product_key(protocol, product))

    output.show(output.described(on_registry(work, protocol), reveal=reveal, without=("devices",)), as_json=as_json)


@app.command("set")
def set_(
    *,
    product: Key,
    secret: Secret = None,
    name: Name = None,
    dynamic_activation: Dynamic = None,
    auto_create: AutoCreate = None,
    certificate_login: CertificateLogin = None,
    register_limit: RegisterLimit = None,
    client_authority: ClientAuthority = None,
    protocol: Protocol = "enos",
    as_json: Json = False,
) -> None:
    """Change what is given of a product."""

    async def work(desk: Desk) -> "tuple[str, Product]":
        from provisioning.core import load
        from provisioning.model.refusal import Reason, Refusal

        spec = desk.product(
            key=product_key(protocol, product), secret=secret, name=name, dynamic_activation=dynamic_activation,
            auto_create=auto_create, certificate_login=certificate_login, register_limit=register_limit,
            client_authority=client_authority,
        )  # fmt: skip
        async with desk.database.begin() as tx:
            await _check_authority(tx, spec)
            outcome, put = await load.put_product(tx, spec)
            if outcome is load.Outcome.CREATED:
                raise Refusal(Reason.UNKNOWN, product=product)
        return outcome, put

    outcome, changed = on_registry(work, protocol)
    output.changed(outcome, product, output.described(changed, without=("devices",)), as_json=as_json)


@app.command()
def delete(
    *, product: Key, cascade: Cascade = False, yes: Yes = False, protocol: Protocol = "enos", as_json: Json = False
) -> None:
    """Delete a product; with --cascade its groups and devices too."""
    everything_of = f"product {product}, its groups and all their devices" if cascade else f"product {product}"
    if not output.confirm(f"Delete {everything_of}?", yes=yes):
        raise typer.Exit(1)

    async def work(desk: Desk) -> int:
        from datetime import UTC, datetime

        from provisioning.core import accounts, registry
        from provisioning.model.refusal import Reason, Refusal
        from provisioning.protocols.ublox.wire import PROTOCOL as OF_ACCOUNTS

        try:
            async with desk.database.begin() as tx:
                if protocol == OF_ACCOUNTS:
                    return await accounts.delete(tx, protocol, product, cascade=cascade, now=datetime.now(UTC))
                which = await registry.product(tx, protocol, product_key(protocol, product))
                return await registry.delete_product(tx, which, cascade=cascade)
        except Refusal as refusal:
            if refusal.reason is Reason.IN_USE:
                raise Failure(f"product {product} has groups or devices: --cascade deletes them too") from refusal
            raise

    output.deleted("product", product, on_registry(work, protocol), as_json=as_json)
