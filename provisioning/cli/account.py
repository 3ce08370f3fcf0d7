# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""`gatehouse account`: tenants of the u-blox API, their secrets and their flags.

A secret is printed when it is made, and is nowhere to be had later: its hash alone is kept.
"""

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from provisioning.cli import output
from provisioning.cli.options import Cascade, Json, Limit, Name, Yes
from provisioning.cli.paging import everything
from provisioning.cli.run import Desk, Failure, on_registry

if TYPE_CHECKING:
    from provisioning.model.account import Account, AccountSpec

PROTOCOL: Final = "ublox"
COLUMNS: Final = ("key", "name", "strict_e2e", "certificates", "devices")

app = typer.Typer(help="Accounts: tenants of the u-blox API, with an API key and a secret.", no_args_is_help=True)

Key = Annotated[str, typer.Argument(metavar="KEY", help="The account's API key.")]
StrictE2e = Annotated[bool | None, typer.Option("--strict-e2e/--no-strict-e2e",
                                                help="Leave KIV out of uplink protection parameters: off unless "
                                                     "stated.")]  # fmt: skip
Certificates = Annotated[bool | None, typer.Option("--certificates/--no-certificates",
                                                   help="Device Certificate Management: on unless "
                                                        "stated.")]  # fmt: skip


def _described(account: "Account") -> dict[str, Any]:
    return {
        "key": account.key, "name": account.name, "strict_e2e": account.strict_e2e,
        "certificates": account.certificates,
    }  # fmt: skip


def _listed(account: "Account") -> dict[str, Any]:
    return _described(account) | {"devices": account.devices, "created_at": account.created_at}


def _spec(desk: Desk, **stated: Any) -> "AccountSpec":
    """What is stated of an account (None: not stated), by the names of a row. Raises: Refusal MALFORMED."""
    from provisioning.model.account import AccountSpec

    spec = desk.vendor.read_row({"type": "account", "protocol": PROTOCOL} | stated)
    assert isinstance(spec, AccountSpec)
    return spec


@app.command()
def create(
    *,
    key: Annotated[str | None, typer.Argument(metavar="[KEY]", help="Its API key; a UUID when not given.")] = None,
    name: Name = None,
    strict_e2e: StrictE2e = None,
    certificates: Certificates = None,
    as_json: Json = False,
) -> None:
    """Create an account, and print its API key and its secret, which is not shown again."""

    async def work(desk: Desk) -> "tuple[Account, str]":
        import uuid

        from provisioning.core import accounts, load_accounts
        from provisioning.core.load import Outcome
        from provisioning.model.refusal import Reason, Refusal

        secret = accounts.new_secret()
        spec = _spec(
            desk, apiKey=str(uuid.uuid4()) if key is None else key, apiSecret=secret, name=name or None,
            strictE2E=strict_e2e, certificateManagement=certificates,
        )  # fmt: skip
        taken = Failure(f"there is an account {spec.key} already; `gatehouse account set` changes it")
        try:
            async with desk.database.begin() as tx:
                outcome, made = await load_accounts.put_account(tx, spec)
                if outcome is not Outcome.CREATED:
                    raise taken  # and its secret stays as it is
        except Refusal as refusal:
            if refusal.reason is Reason.DUPLICATE:
                raise taken from refusal
            raise
        return made, secret

    made, secret = on_registry(work, PROTOCOL, new=True)
    _show_with_secret(_described(made), secret, as_json=as_json)


def _show_with_secret(fields: dict[str, Any], secret: str, *, as_json: bool) -> None:
    key = fields.pop("key")
    output.show({"key": key, "secret": secret} | fields, as_json=as_json)
    if not as_json:
        output.note("the secret is not shown again")


@app.command("list")
def list_(limit: Limit = None, as_json: Json = False) -> None:
    """List accounts."""

    async def work(desk: Desk) -> None:
        from provisioning.store import accounts

        await everything(
            desk, COLUMNS, lambda tx, last, n: accounts.page(tx, PROTOCOL, last.key if last else "", n), limit=limit,
            as_json=as_json, describe=_listed,
        )  # fmt: skip

    on_registry(work, PROTOCOL)


@app.command("set")
def set_(
    *,
    key: Key,
    name: Name = None,
    strict_e2e: StrictE2e = None,
    certificates: Certificates = None,
    as_json: Json = False,
) -> None:
    """Change what is given of an account."""

    async def work(desk: Desk) -> "tuple[str, Account]":
        from dataclasses import replace

        from provisioning.core import accounts, load_accounts

        spec = _spec(
            desk, apiKey=key, name=name or None, strictE2E=strict_e2e, certificateManagement=certificates
        )  # fmt: skip
        async with desk.database.begin() as tx:
            await accounts.find(tx, PROTOCOL, key)
            return await load_accounts.put_account(tx, replace(spec, name=name))

    outcome, changed = on_registry(work, PROTOCOL)
    output.changed(outcome, key, _described(changed), as_json=as_json)


@app.command()
def rotate(key: Key, as_json: Json = False) -> None:
    """Give an account a new secret, and print it. The secret before and all its tokens end at once."""

    async def work(desk: Desk) -> "tuple[Account, str]":
        from provisioning.core import accounts

        secret = accounts.new_secret()
        async with desk.database.begin() as tx:
            found = await accounts.find(tx, PROTOCOL, key)
            return await accounts.rotate(tx, found, PROTOCOL, accounts.hash_secret(secret)), secret

    rotated, secret = on_registry(work, PROTOCOL)
    _show_with_secret({"key": rotated.key}, secret, as_json=as_json)


@app.command()
def delete(*, key: Key, cascade: Cascade = False, yes: Yes = False, as_json: Json = False) -> None:
    """Delete an account with its tags, whitelist, root CAs and webhooks; with --cascade devices and profiles too."""
    everything_of = f"account {key}, its device profiles and all its devices" if cascade else f"account {key}"
    if not output.confirm(f"Delete {output.clean(everything_of)}?", yes=yes):
        raise typer.Exit(1)

    async def work(desk: Desk) -> int:
        from datetime import UTC, datetime

        from provisioning.core import accounts
        from provisioning.model.refusal import Reason, Refusal

        try:
            async with desk.database.begin() as tx:
                return await accounts.delete(tx, PROTOCOL, key, cascade=cascade, now=datetime.now(UTC))
        except Refusal as refusal:
            if refusal.reason is Reason.IN_USE:
                raise Failure(f"account {key} has devices or device profiles: --cascade deletes them too") from refusal
            raise

    output.deleted("account", key, on_registry(work, PROTOCOL), as_json=as_json)
