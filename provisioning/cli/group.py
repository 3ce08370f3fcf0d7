# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""`gatehouse group`."""

from typing import TYPE_CHECKING, Annotated, Final

import typer

from provisioning.cli import output
from provisioning.cli.options import Cascade, Json, Limit, Name, Protocol, Reveal, Yes
from provisioning.cli.paging import everything
from provisioning.cli.run import Desk, Failure, on_registry

if TYPE_CHECKING:
    from provisioning.model.registry import Group

app = typer.Typer(help="Enrolment groups: devices that enrol with one password.", no_args_is_help=True)
COLUMNS: Final = ("key", "product", "name", "auto_register", "auto_activation", "freshness")

Key = Annotated[str, typer.Argument(metavar="GROUP", help="Key of the group.")]
Password = Annotated[str | None, typer.Option(help="Password that proves its devices.")]
Product = Annotated[str | None, typer.Option(help="Key of the product in which its devices are allocated.")]
AutoRegister = Annotated[bool | None, typer.Option("--auto-register/--no-auto-register",
                                                   help="Unknown serial numbers register themselves.")]  # fmt: skip
AutoActivation = Annotated[bool | None, typer.Option("--auto-activation/--no-auto-activation",
                                                     help="Registered devices are allocated at once.")]  # fmt: skip
Freshness = Annotated[int | None, typer.Option(metavar="SECONDS", help="How old a signature may be; 0: any age.")]


@app.command()
def create(
    *,
    group: Annotated[str | None, typer.Argument(metavar="[GROUP]", help="Its key; made up when not given.")] = None,
    password: Password = None,
    product: Product = None,
    name: Name = None,
    auto_register: AutoRegister = None,
    auto_activation: AutoActivation = None,
    freshness: Freshness = None,
    protocol: Protocol = "enos",
    as_json: Json = False,
) -> None:
    """Create an enrolment group, and print it with its password."""

    async def work(desk: Desk) -> "Group":
        from provisioning.core import generate, importing, load

        spec = desk.group(
            key=generate.product_key() if group is None else group, password=password, product=product, name=name,
            auto_register=auto_register, auto_activation=auto_activation, freshness=freshness,
        )  # fmt: skip
        async with desk.database.begin() as tx:
            outcome, made = await importing.put_group(tx, spec)
            if outcome is not load.Outcome.CREATED:
                raise Failure(f"there is a group {spec.key} already; `gatehouse group set` changes it")
        return made

    output.show(output.made(on_registry(work, protocol, new=True)), as_json=as_json)


@app.command("list")
def list_(protocol: Protocol = "enos", limit: Limit = None, as_json: Json = False) -> None:
    """List enrolment groups."""

    async def work(desk: Desk) -> None:
        from provisioning.store import groups

        await everything(
            desk, COLUMNS, lambda tx, last, n: groups.page(tx, protocol, (protocol, last.key if last else ""), n),
            limit=limit, as_json=as_json,
        )  # fmt: skip

    on_registry(work, protocol)


@app.command()
def show(group: Key, protocol: Protocol = "enos", reveal: Reveal = False, as_json: Json = False) -> None:
    """Show an enrolment group."""

    async def work(desk: Desk) -> "Group":
        from provisioning.core import registry

        async with desk.database.read() as tx:
            return await registry.group(tx, protocol, group)

    output.show(output.described(on_registry(work, protocol), reveal=reveal), as_json=as_json)


@app.command("set")
def set_(
    *,
    group: Key,
    password: Password = None,
    product: Product = None,
    name: Name = None,
    auto_register: AutoRegister = None,
    auto_activation: AutoActivation = None,
    freshness: Freshness = None,
    protocol: Protocol = "enos",
    as_json: Json = False,
) -> None:
    """Change what is given of an enrolment group."""

    async def work(desk: Desk) -> "tuple[str, Group]":
        from provisioning.core import importing, load
        from provisioning.model.refusal import Reason, Refusal

        spec = desk.group(
            key=group, password=password, product=product, name=name, auto_register=auto_register,
            auto_activation=auto_activation, freshness=freshness,
        )  # fmt: skip
        async with desk.database.begin() as tx:
            outcome, put = await importing.put_group(tx, spec)
            if outcome is load.Outcome.CREATED:
                raise Refusal(Reason.UNKNOWN, group=group)
        return outcome, put

    outcome, changed = on_registry(work, protocol)
    output.changed(outcome, group, output.described(changed), as_json=as_json)


@app.command()
def delete(
    *, group: Key, cascade: Cascade = False, yes: Yes = False, protocol: Protocol = "enos", as_json: Json = False
) -> None:
    """Delete an enrolment group; with --cascade its devices too."""
    if not output.confirm(f"Delete group {group}{' and all its devices' if cascade else ''}?", yes=yes):
        raise typer.Exit(1)

    async def work(desk: Desk) -> int:
        from provisioning.core import registry
        from provisioning.model.refusal import Reason, Refusal

        try:
            async with desk.database.begin() as tx:
                which = await registry.group(tx, protocol, group)
                return await registry.delete_group(tx, which, cascade=cascade)
        except Refusal as refusal:
            if refusal.reason is Reason.IN_USE:
                raise Failure(f"group {group} has devices: --cascade deletes them too") from refusal
            raise

    output.deleted("group", group, on_registry(work, protocol), as_json=as_json)
