# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""`gatehouse ca`: certificate authorities. Each change holds on a running service at once: the database tells it."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from provisioning.cli import files, output
from provisioning.cli.certificates import (
    KeyKind,
    about,
    check_new_name,
    described_authority,
    find_authority,
    now,
    title,
)
from provisioning.cli.options import Json, Yes
from provisioning.cli.run import Desk, Failure, on_registry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from provisioning.core.signing import Issuer
    from provisioning.model.certificate import Authority
    from provisioning.store.database import Tx

app = typer.Typer(help="Certificate authorities, as NAME or NAME-GENERATION.", no_args_is_help=True)
COLUMNS: Final = ("authority", "default", "status", "signs", "key", "expires", "subject")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and hyphens.")]
Known = Annotated[str, typer.Argument(metavar="NAME[-GENERATION]", help="The latest generation, unless stated.")]
Exactly = Annotated[str, typer.Argument(metavar="NAME-GENERATION", help="Which generation of which authority.")]
Kind = Annotated[KeyKind | None, typer.Option("--key", help="Kind of its key.", show_default="pki.key")]
Years = Annotated[int | None, typer.Option(help="How long it is valid.", show_default="pki.authority_years")]
Chain = Annotated[str | None, typer.Option("--chain", metavar="FILE", help="PEM of those above it.")]
PasswordFile = Annotated[str | None, typer.Option("--password-file", metavar="FILE", help="With the key's password.")]
IsDefault = Annotated[bool, typer.Option("--default", help="What names no authority is issued by it from now on.")]


# --- make ------------------------------------------------------------------------------------------------------------


@app.command()
def create(
    *,
    name: Name,
    key: Kind = None,
    years: Years = None,
    subject: Annotated[str | None, typer.Option("--subject", metavar="CN", help="Its common name.")] = None,
    organization: Annotated[str, typer.Option(help="Its organization.", show_default=False)] = "",
    path_length: Annotated[int, typer.Option(help="How many authorities may stand below it.")] = 0,
    permit_dns: Annotated[
        list[str] | None, typer.Option(metavar="TREE", help="It may certify these DNS trees only.")
    ] = None,
    default: IsDefault = False,
    as_json: Json = False,
) -> None:
    """Make a self-signed authority. The first one is the default."""

    async def work(desk: Desk) -> "Authority":
        from provisioning.core import ca
        from provisioning.core.pki import KeyType

        check_new_name(name)
        pki = desk.settings.pki
        private = await ca.make_key(KeyType(key or pki.key))
        async with desk.database.begin() as tx:
            made = await ca.create(
                tx, name, private, now=now(), common_name=subject or "", organization=organization,
                years=pki.authority_years if years is None else years, path_length=path_length,
                permitted_dns=permit_dns or (),
            )  # fmt: skip
            return await _as_default(tx, made) if default else made

    _run(f"an authority {name}", work, as_json=as_json, new=True)


@app.command("import")
def import_(
    *,
    name: Name,
    certificate: Annotated[str, typer.Argument(metavar="CERT_FILE", help="PEM, its own certificate first.")],
    key: Annotated[str | None, typer.Option("--key", metavar="KEY_FILE", help="PEM. Without: trusted only.")] = None,
    chain: Chain = None,
    password_file: PasswordFile = None,
    default: IsDefault = False,
    as_json: Json = False,
) -> None:
    """Bring in a company's own authority: with its key it issues, without it its certificates can be adopted.

    The key is checked, sealed and stored; the file stays as it is.
    """

    async def work(desk: Desk) -> "Authority":
        from provisioning.core import ca, signing

        check_new_name(name)
        if key is None:
            if chain or password_file or default:
                raise Failure("--chain, --password-file and --default are for an authority that signs: state its --key")
            anchor = signing.read_anchor(files.read(certificate), now=now())
            async with desk.database.begin() as tx:
                return await ca.trust(tx, name, anchor)
        issuer = _read_issuer(certificate, key, chain, password_file)
        async with desk.database.begin() as tx:
            added = await ca.import_(tx, name, issuer)
            return await _as_default(tx, added) if default else added

    _run(f"an authority {name}", work, as_json=as_json, new=True)


@app.command()
def rotate(
    *,
    name: Known,
    key: Annotated[KeyKind | None, typer.Option("--key", help="Kind of its key.", show_default="as before")] = None,
    years: Years = None,
    certificate: Annotated[
        str | None, typer.Option("--certificate", metavar="FILE", help="PEM, of one that was issued elsewhere.")
    ] = None,
    key_file: Annotated[str | None, typer.Option("--key-file", metavar="FILE", help="PEM, its key.")] = None,
    chain: Chain = None,
    password_file: PasswordFile = None,
    as_json: Json = False,
) -> None:
    """Make the next generation of an authority. The one before issues no more, and is trusted until it expires.

    An authority that was issued elsewhere comes with --certificate, and --key-file if it signs.
    """
    if certificate is None and (key_file or chain or password_file):
        raise typer.BadParameter("--key-file, --chain and --password-file come with --certificate")
    if certificate is not None and (key or years):
        raise typer.BadParameter("--key and --years are for a key and certificate that are made here")

    async def work(desk: Desk) -> "Authority":
        from provisioning.core import ca, signing
        from provisioning.core.pki import KeyType

        async with desk.database.read() as tx:  # before a key is made in vain
            latest = await find_authority(tx, name)
        if certificate is None and (latest.chain or not latest.has_key):
            raise Failure(f"{title(latest)} was issued elsewhere: its next generation comes with --certificate")
        successor: Any
        if certificate is None:
            same = latest.key_type if latest.key_type in set(KeyType) else desk.settings.pki.key
            successor = await ca.make_key(KeyType(key or same))
        elif key_file is None:
            successor = signing.read_anchor(files.read(certificate), now=now())
        else:
            successor = _read_issuer(certificate, key_file, chain, password_file)
        length = desk.settings.pki.authority_years if years is None else years
        async with desk.database.begin() as tx:
            return await ca.rotate(tx, latest, successor, now=now(), years=length)

    _run(f"authority {name}", work, as_json=as_json)


def _read_issuer(certificate: str, key: str, chain: str | None, password_file: str | None) -> "Issuer":
    from provisioning.core import signing

    return signing.read_authority(
        files.read(certificate), files.read(key), now=now(), others=files.read(chain) if chain else b"",
        password=files.read_password(password_file) if password_file else None,
    )  # fmt: skip


async def _as_default(tx: "Tx", authority: "Authority") -> "Authority":
    from provisioning.core import ca

    await ca.set_default(tx, authority, now=now())
    return await ca.find(tx, authority.name, authority.generation)


# --- look ------------------------------------------------------------------------------------------------------------


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the authorities, every generation of each."""

    async def work(desk: Desk) -> "list[Authority]":
        from provisioning.store import authorities

        async with desk.database.read() as tx:
            return await authorities.every(tx)

    at = now()
    found = [described_authority(each, at) for each in on_registry(work)]
    if not as_json:
        found = [each | {"expires": f"{each['not_after']:%Y-%m-%d}"} for each in found]
    output.rows(COLUMNS, found, as_json=as_json)


@app.command()
def show(
    name: Known,
    pem: Annotated[bool, typer.Option("--pem", help="Its certificate and those above it, and nothing else.")] = False,
    as_json: Json = False,
) -> None:
    """Show an authority."""
    found = _find(name)
    if pem:
        print(_pem(found), end="")
    else:
        output.show(described_authority(found, now()) | _constraints(found), as_json=as_json)


def _find(name: str) -> "Authority":
    async def work(desk: Desk) -> "Authority":
        with about(f"authority {name}"):
            async with desk.database.read() as tx:
                return await find_authority(tx, name)

    return on_registry(work)


def _pem(authority: "Authority") -> str:
    from provisioning.core import pki

    return pki.write_pem(authority.certificate, *authority.chain)


def _constraints(authority: "Authority") -> dict[str, Any]:
    """What stands in its certificate, and who is above it."""
    from cryptography import x509

    from provisioning.core import ca, chain, pki

    own, *above = ca.path_of(authority)
    basic, names = chain.extension(own, x509.BasicConstraints), chain.extension(own, x509.NameConstraints)
    trees = names.permitted_subtrees or [] if isinstance(names, x509.NameConstraints) else []
    return {
        "path_length": basic.path_length if isinstance(basic, x509.BasicConstraints) else None,
        "permitted": [str(each.value) for each in trees],
        "chain": [chain.words(each.subject) for each in above],
        "fingerprint": pki.fingerprint(authority.certificate),
    }


@app.command()
def export(
    name: Known,
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="Where to; - is stdout.")] = files.STANDARD,
    crl: Annotated[bool, typer.Option("--crl", help="Also its CRL, made now.")] = False,
) -> None:
    """Write the certificate of an authority and those above it, as PEM. There is no secret in it."""

    async def work(desk: Desk) -> str:
        from provisioning.core import publish, revocation

        with about(f"authority {name}"):
            async with desk.database.begin() as tx:
                authority = await find_authority(tx, name)
                text = _pem(authority)
                if crl:
                    validity = timedelta(days=desk.settings.pki.crl_days)
                    der = await publish.make_crl(tx, authority, now=now(), validity=validity)
                    text += revocation.write_crl_pem(der)
        files.write(file, text, files.PUBLIC)
        return title(authority)

    exported = on_registry(work)
    if file != files.STANDARD:
        output.note(f"{exported} in {file}")


# --- change ----------------------------------------------------------------------------------------------------------


@app.command("default")
def default_(name: Known, as_json: Json = False) -> None:
    """Let an authority issue whatever names none."""
    _step(name, _as_default, as_json=as_json)


@app.command()
def distrust(name: Exactly, yes: Yes = False, as_json: Json = False) -> None:
    """Accept nothing more that it issued: devices with its certificates are refused, and their sessions end.

    Its CRL and OCSP responses go on. `restore` undoes it.
    """

    async def step(tx: "Tx", authority: "Authority") -> "Authority":
        from provisioning.core import ca

        return await ca.distrust(tx, authority, now=now())

    _check_exact(name)
    if not output.confirm(f"Refuse every device with a certificate of {name}?", yes=yes):
        raise typer.Exit(1)
    _step(name, step, as_json=as_json)


@app.command()
def restore(name: Exactly, as_json: Json = False) -> None:
    """Trust a distrusted authority again."""

    async def step(tx: "Tx", authority: "Authority") -> "Authority":
        from provisioning.core import ca

        return await ca.restore(tx, authority)

    _check_exact(name)
    _step(name, step, as_json=as_json)


def _check_exact(name: str) -> None:
    from provisioning.cli.certificates import GENERATION

    if not GENERATION.fullmatch(name):
        raise typer.BadParameter(f"state the generation, as in {name}-1: `gatehouse ca list` shows them")


def _step(name: str, step: "Callable[[Tx, Authority], Awaitable[Authority]]", *, as_json: bool) -> None:
    async def work(desk: Desk) -> "Authority":
        async with desk.database.begin() as tx:
            return await step(tx, await find_authority(tx, name))

    _run(f"authority {name}", work, as_json=as_json)


def _run(what: str, work: "Callable[[Desk], Awaitable[Authority]]", *, as_json: bool, new: bool = False) -> None:
    """Do the work, and show the authority that it is about as it stands now. `new`: as `on_registry`."""

    async def told(desk: Desk) -> "tuple[Authority, datetime]":
        with about(what):
            return await work(desk), now()

    authority, at = on_registry(told, new=new)
    output.show(described_authority(authority, at), as_json=as_json)
