# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""`gatehouse webhook`: whom accounts have events told to, and what could not be delivered."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final

import typer

from provisioning.cli import output
from provisioning.cli.options import Json, Limit
from provisioning.cli.paging import everything
from provisioning.cli.run import Desk, Failure, on_registry

if TYPE_CHECKING:
    from provisioning.store.webhooks import Dead, Webhook

PROTOCOL: Final = "ublox"
COLUMNS: Final = ("id", "account", "type", "waiting", "dead", "url")
DEAD_COLUMNS: Final = ("id", "account", "type", "subject", "dead_at", "attempts", "error", "url")
WRAPPED: Final = ("url", "error", "account")
AT_ONCE: Final = 1_000

app = typer.Typer(help="Webhooks of accounts, and their dead letters.", no_args_is_help=True)

Account = Annotated[str | None, typer.Option(help="API key of an account.")]
Url = Annotated[str | None, typer.Option(help="A URL, as it was registered.")]


@app.command("list")
def list_(account: Account = None, limit: Limit = None, as_json: Json = False) -> None:
    """List webhooks, with the deliveries that wait for them and those that were given up."""

    async def work(desk: Desk) -> None:
        from provisioning.store import webhooks

        await everything(
            desk, COLUMNS, lambda tx, last, n: webhooks.page(tx, PROTOCOL, account, last.id if last else 0, n),
            limit=limit, as_json=as_json, describe=_described, wrapped=WRAPPED,
        )  # fmt: skip

    on_registry(work, PROTOCOL)


@app.command()
def dead(account: Account = None, url: Url = None, limit: Limit = None, as_json: Json = False) -> None:
    """List deliveries that were given up, oldest first."""

    async def work(desk: Desk) -> None:
        from provisioning.store import webhooks

        await everything(
            desk, DEAD_COLUMNS, lambda tx, last, n: webhooks.dead(tx, PROTOCOL, last, n, account=account, url=url),
            limit=limit, as_json=as_json, describe=_described, wrapped=WRAPPED,
        )  # fmt: skip

    on_registry(work, PROTOCOL)


@app.command()
def replay(
    ids: Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="As `webhook dead` names them.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    account: Account = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Deliver dead letters after all: they are due now, and have all their attempts before them."""
    if sum(map(bool, (ids, every, account or url))) != 1:
        raise typer.BadParameter("name dead letters by their ids, by --account and --url, or --all")
    if ids and not all(0 < each < 2**63 for each in ids):
        raise typer.BadParameter("an id is a positive number")

    async def work(desk: Desk) -> int:
        from datetime import UTC, datetime

        from provisioning.store import webhooks

        count = 0
        while True:
            async with desk.database.begin() as tx:
                found = await webhooks.revive(
                    tx, PROTOCOL, account=account, url=url, ids=ids, now=datetime.now(UTC), limit=AT_ONCE
                )  # fmt: skip
            count += len(found)
            if len(found) < AT_ONCE:
                break
        if ids and not count:
            raise Failure("none of these is a dead letter")
        return count

    count = on_registry(work, PROTOCOL)
    if as_json:
        output.print_json({"outcome": "replayed", "deliveries": count})
    else:
        print(f"replayed {output.counted(count, 'dead letter')}")


def _described(thing: "Webhook | Dead") -> Mapping[str, object]:
    fields = dataclasses.asdict(thing)
    return {"type" if name == "kind" else name: value for name, value in fields.items()}
