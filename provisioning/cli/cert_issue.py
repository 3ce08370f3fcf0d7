# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""`gatehouse cert issue | renew | adopt`.

Files are written before the transaction commits: a certificate that is in the inventory is in its file too, and so is
its key. When anything fails there is neither file nor certificate.
"""

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from provisioning.cli import files, output
from provisioning.cli.certificates import (
    Issuer,
    KeyKind,
    SerialNumber,
    about,
    addresses,
    contents,
    described_certificate,
    find_authority,
    find_certificate,
    now,
    titles,
)
from provisioning.cli.options import Json, Protocol
from provisioning.cli.run import Desk, Failure, on_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from provisioning.core.pki import Request
    from provisioning.model.certificate import Authority, Certificate, Profile
    from provisioning.model.registry import Device
    from provisioning.settings import Settings
    from provisioning.store.database import Tx

Days = Annotated[int | None, typer.Option(help="How long it is valid; never longer than its issuer.",
                                          show_default="pki.leaf_days, of a server tls.days")]  # fmt: skip
Signer = Annotated[str | None, typer.Option("--authority", metavar="NAME[-GENERATION]", help="Who issues it.")]
Out = Annotated[
    str, typer.Option("--out", metavar="FILE", help="A new file for it and those above it, PEM; - is stdout.")
]


def add_to(app: typer.Typer) -> None:
    for command in (issue, renew, adopt):
        app.command()(command)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `issue` is asked for: a certificate for a device, or for the names of a server."""

    device: tuple[str, str, str] | None
    """Protocol, product, key."""
    names: tuple[str, ...]

    def __str__(self) -> str:
        return "/".join(self.device[1:]) if self.device else self.names[0]

    @property
    def profile(self) -> "Profile":
        from provisioning.model.certificate import Profile

        return Profile.DEVICE if self.device else Profile.SERVER

    async def find(self, tx: "Tx") -> "Device | None":
        """Raises: Refusal UNKNOWN."""
        from provisioning.core import registry

        return await registry.device(tx, *self.device) if self.device else None


def issue(
    *,
    whom: Annotated[list[str], typer.Argument(metavar="PRODUCT DEVICE | NAME…", help="A device, or names and addresses "
                                                                                    "of a server.")],
    server: Annotated[bool, typer.Option("--server", help="For a server.")] = False,
    csr: Annotated[str | None, typer.Option("--csr", metavar="FILE", help="A request with subject and key, PEM or DER; "
                                            "names that it asks for do not count.")] = None,
    key_out: Annotated[str | None, typer.Option("--key-out", metavar="FILE", help="A new file for a key that is made "
                                                "now, and kept nowhere else.")] = None,
    key: Annotated[KeyKind, typer.Option("--key", help="Kind of the key that is made.")] = "p256",
    days: Days = None,
    authority: Signer = None,
    out: Out = files.STANDARD,
    protocol: Protocol = "enos",
    as_json: Json = False,
) -> None:  # fmt: skip
    """Issue a certificate for a device, or with --server for DNS names and IP addresses."""
    if not server and len(whom) != 2:  # noqa: PLR2004 - a product and a device
        raise typer.BadParameter("name the device: PRODUCT DEVICE; or a server: --server NAME…")
    if (csr is None) is (key_out is None):
        raise typer.BadParameter("state --csr FILE, or --key-out FILE for a key that is made now")
    if key_out == files.STANDARD:
        raise typer.BadParameter("a key goes into a file of its own")
    wanted = Wanted(None if server else (protocol, whom[0], whom[1]), tuple(whom) if server else ())

    async def work(desk: Desk) -> "tuple[dict[str, Any], str]":
        from cryptography import x509

        from provisioning.core import ca, certify, pki

        with about(f"certificate of {wanted}"), contextlib.ExitStack() as stack:
            request = pki.read_csr(files.read(csr)) if csr else None
            names = pki.read_names(wanted.names)
            valid = _days(desk.settings, wanted.profile, days)
            write_key = stack.enter_context(files.new(key_out, files.PRIVATE)) if key_out else None
            write = stack.enter_context(_certificate_file(out))
            if request is None:
                private = await ca.make_key(pki.KeyType(key))
                assert write_key is not None
                write_key(pki.write_key(private))
                request = pki.Request(x509.Name([]), private.public_key())
            async with desk.database.begin() as tx:
                device = await wanted.find(tx)
                signer = await find_authority(tx, authority)
                made = await certify.issue_from_csr(
                    tx, signer, request, now=now(), days=valid, device=device, profile=wanted.profile,
                    subject=_subject(request, wanted), names=names, urls=addresses(desk.settings, signer),
                )  # fmt: skip
                return await _written(tx, signer, made, write)

    _print(*on_registry(work, protocol), out, as_json=as_json)


def _subject(request: "Request", wanted: Wanted) -> Any:
    """That of the request; one that has none gets the device's keys or the server's first name."""
    from provisioning.core import pki

    if request.subject.rdns:
        return request.subject
    if wanted.device:
        _, product, device = wanted.device
        return pki.make_subject(device, product)
    return pki.make_subject(wanted.names[0][:64])


def renew(
    *,
    serial: SerialNumber,
    days: Days = None,
    authority: Signer = None,
    out: Out = files.STANDARD,
    issuer: Issuer = None,
    as_json: Json = False,
) -> None:
    """Issue a certificate anew: the same key, subject and names, by the latest generation of its authority.

    The one before stays valid until it expires, or until its device has used the new one.
    """

    async def work(desk: Desk) -> "tuple[dict[str, Any], str]":
        from provisioning.core import certify
        from provisioning.model.certificate import Profile
        from provisioning.store import authorities

        with about(f"certificate {serial}"), _certificate_file(out) as write:
            async with desk.database.begin() as tx:
                old = await find_certificate(tx, serial, issuer)
                if old.profile is Profile.OCSP:
                    raise Failure(f"certificate {serial} is that of an OCSP responder: the service renews it")
                issued_by = await authorities.by_id(tx, old.authority_id)
                assert issued_by is not None
                signer = await find_authority(tx, authority or issued_by.name)
                made = await certify.renew(
                    tx, signer, old, now=now(), days=_days(desk.settings, old.profile, days),
                    urls=addresses(desk.settings, signer),
                )  # fmt: skip
                return await _written(tx, signer, made, write)

    _print(*on_registry(work), out, as_json=as_json)


def adopt(
    *,
    product: Annotated[str, typer.Argument(help="Key of the product.")],
    device: Annotated[str, typer.Argument(help="Key of the device.")],
    file: Annotated[str, typer.Argument(metavar="FILE", help="The certificate, PEM or DER; - is stdin.")],
    authority: Annotated[
        str, typer.Option("--authority", metavar="NAME[-GENERATION]", help="Who issued it; see `gatehouse ca import`.")
    ],
    protocol: Protocol = "enos",
    as_json: Json = False,
) -> None:
    """Let a device in with a certificate that others issued; their authority must be trusted here."""

    async def work(desk: Desk) -> "dict[str, Any]":
        from provisioning.core import certify, pki, registry

        leaf = pki.read_certificate(files.read(file))
        with about("the certificate"):
            async with desk.database.begin() as tx:
                owner = await registry.device(tx, protocol, product, device)
                issued_by = await find_authority(tx, authority)
                added = await certify.adopt(tx, issued_by, leaf, now=now(), device=owner)
                return described_certificate(added, await titles(tx), now())

    fields = on_registry(work)
    output.changed("adopted", f"certificate {fields['serial']} of {product}/{device}", fields, as_json=as_json)


def _days(settings: "Settings", profile: "Profile", stated: int | None) -> int:
    """Raises: Failure."""
    from provisioning.model.certificate import Profile

    if stated is None:
        return settings.tls.days if profile is Profile.SERVER else settings.pki.leaf_days
    if not 1 <= stated <= settings.pki.max_leaf_days:
        raise Failure(f"days must be 1 to {settings.pki.max_leaf_days} (the setting pki.max_leaf_days)")
    return stated


@contextlib.contextmanager
def _certificate_file(out: str) -> "Iterator[Callable[[str], None]]":
    """What writes the certificate; stdout has its turn when everything else is done."""
    if out == files.STANDARD:
        yield lambda _text: None
        return
    with files.new(out, files.PUBLIC) as write:
        yield write


async def _written(
    tx: "Tx", signer: "Authority", made: "Certificate", write: "Callable[[str], None]"
) -> "tuple[dict[str, Any], str]":
    """Its fields and its PEM, which is in the file."""
    from provisioning.core import certify

    text = certify.bundle(signer, made)
    write(text)
    return described_certificate(made, await titles(tx), now()) | contents(made), text


def _print(fields: dict[str, Any], text: str, out: str, *, as_json: bool) -> None:
    if as_json:
        output.print_json(fields | {"certificate": text})
        return
    if out == files.STANDARD:
        print(text, end="")
    output.note(f"certificate {fields['serial']} by {fields['authority']}, valid until "
                f"{fields['not_after']:%Y-%m-%d}" + ("" if out == files.STANDARD else f", in {out}"))  # fmt: skip
