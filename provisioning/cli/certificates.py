# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""How commands speak of authorities and certificates: by which name, in which words, at which addresses."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from provisioning.cli.run import Failure
from provisioning.model.certificate import Authority, Certificate, Status
from provisioning.model.refusal import Reason, Refusal

if TYPE_CHECKING:
    from provisioning.core.signing import Urls
    from provisioning.settings import Settings
    from provisioning.store.database import Tx

GENERATION: Final = re.compile(r"(?P<name>.+)-(?P<generation>[0-9]{1,6})")
IN_CORE: Final = re.compile(r"(?P<name>[a-z0-9-]+)/(?P<generation>[0-9]+)")
ALREADY: Final = {"hold": "held", "revoke": "revoked", "distrust": "distrusted"}

KeyKind = Literal["p256", "p384", "rsa2048", "rsa3072", "rsa4096"]
Issuer = Annotated[str | None, typer.Option("--issuer", metavar="NAME-GENERATION",
                                            help="Whose it is, where several authorities issued this serial number.",
                                            show_default=False)]  # fmt: skip
SerialNumber = Annotated[str, typer.Argument(metavar="SERIAL", help="Hexadecimal, as tools print it.")]


def now() -> datetime:
    return datetime.now(UTC)


# --- names -----------------------------------------------------------------------------------------------------------


def title(authority: Authority) -> str:
    """NAME-GENERATION: what commands take, and what stands in addresses."""
    return f"{authority.name}-{authority.generation}"


def check_new_name(name: str) -> None:
    """Raises: Failure, when the name would read as that of a generation."""
    if GENERATION.fullmatch(name):
        raise Failure(f"name must not end in a hyphen and digits: {name} would read as a generation")


async def find_authority(tx: "Tx", named: str | None) -> Authority:
    """By NAME-GENERATION, or by NAME the latest generation; None: the default. Raises: Refusal UNKNOWN."""
    from provisioning.core import ca

    if named is None:
        return await ca.default(tx)
    if found := GENERATION.fullmatch(named):
        return await ca.find(tx, found["name"], int(found["generation"]))
    return await ca.find(tx, named)


async def find_certificate(tx: "Tx", serial: str, issuer: str | None) -> Certificate:
    """By serial number, also as `openssl x509 -serial` prints it.

    Raises:
        Refusal: MALFORMED, UNKNOWN; DUPLICATE, when it takes the issuer to tell which.
    """
    from provisioning.core import inventory

    serial = serial.removeprefix("serial=")
    return await inventory.find(tx, serial, await find_authority(tx, issuer) if issuer else None)


async def titles(tx: "Tx") -> dict[int, str]:
    """NAME-GENERATION of every authority, by id."""
    from provisioning.store import authorities

    return {each: f"{name}-{generation}" for each, (name, generation) in (await authorities.names(tx)).items()}


# --- words -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def about(what: str) -> Iterator[None]:
    """Whatever is refused in the block is said of `what` (`authority acme-1`), in words of certificates.

    Raises:
        Failure: in place of the Refusal.
    """
    try:
        yield
    except Refusal as refusal:
        if said := words(refusal, what):
            raise Failure(said) from refusal
        raise


def words(refusal: Refusal, what: str) -> str:
    """Empty: there is nothing particular about it."""
    detail = refusal.detail
    match refusal.reason:
        case Reason.ILLEGAL_TRANSITION:
            who = f"authority {_titled(str(detail['authority']))}" if "authority" in detail else what
            state, step = str(detail.get("state")), str(detail.get("step"))
            return f"{who} is {state} already" if ALREADY.get(step) == state else f"{who} is {state}: cannot {step}"
        case Reason.IN_USE if "rule" in detail:
            return f"{what} cannot go: {detail['rule']}"
        case Reason.UNKNOWN if detail.get("authority") == "default":
            return "there is no default authority: `gatehouse ca create NAME` makes one, and so does the first start"
        case Reason.UNKNOWN if "authority" in detail:
            return f"there is no authority {_titled(str(detail['authority']))}"
        case Reason.DUPLICATE:
            return {
                "authority": f"there is {what} already; `gatehouse ca rotate` makes its next generation",
                "subject": "another authority has this subject: state another one with --subject",
                "certificate": "this certificate is known already",
                "serial": f"several authorities have issued {what}: state which with --issuer",
            }.get(str(detail.get("field")), "")
    return ""


def _titled(name: str) -> str:
    return f"{found['name']}-{found['generation']}" if (found := IN_CORE.fullmatch(name)) else name


# --- fields ----------------------------------------------------------------------------------------------------------


def standing(authority: Authority, at: datetime) -> str:
    """What may be said of it in a word or two."""
    states = {
        "distrusted": authority.distrusted_at is not None,
        "expired": at >= authority.not_after,
        "not yet valid": at < authority.not_before,
        "retired": authority.retired_at is not None,
    }
    return next((state for state, holds in states.items() if holds), "valid")


def state(certificate: Certificate, at: datetime) -> str:
    """Its status; a valid one that is past its time is `expired`."""
    return "expired" if certificate.status is Status.VALID and at >= certificate.not_after else str(certificate.status)


def described_authority(authority: Authority, at: datetime) -> dict[str, Any]:
    return {
        "authority": title(authority), "name": authority.name, "generation": authority.generation,
        "status": standing(authority, at), "default": authority.is_default, "key": authority.key_type,
        "signs": authority.has_key, "subject": authority.subject, "serial": authority.serial,
        "not_before": authority.not_before, "not_after": authority.not_after, "retired_at": authority.retired_at,
        "distrusted_at": authority.distrusted_at, "created_at": authority.created_at,
    }  # fmt: skip


def described_certificate(certificate: Certificate, issuers: Mapping[int, str], at: datetime) -> dict[str, Any]:
    """`issuers`: as `titles`."""
    identity = certificate.identity
    return {
        "serial": certificate.serial, "authority": issuers.get(certificate.authority_id, ""),
        "status": state(certificate, at), "profile": str(certificate.profile), "cn": certificate.cn,
        "product": identity.product if identity else "", "device": identity.device if identity else "",
        "not_before": certificate.not_before, "not_after": certificate.not_after,
        "reason": str(certificate.reason) if certificate.reason else None, "revoked_at": certificate.revoked_at,
        "last_seen_at": certificate.last_seen_at, "fingerprint": certificate.fingerprint,
        "created_at": certificate.created_at,
    }  # fmt: skip


def contents(certificate: Certificate) -> dict[str, Any]:
    """What stands in the certificate itself, beside what the inventory knows of every one."""
    from cryptography import x509

    from provisioning.core import chain, pki

    parsed = pki.read_certificate(certificate.der)
    names = [
        str(each.value) if not isinstance(each, x509.DirectoryName) else chain.words(each.value)
        for each in chain.alternative_names(parsed)
    ]
    key = pki.key_type(pki.check_key(parsed.public_key(), "certificate"))
    return {"subject": parsed.subject.rfc4514_string(), "names": names, "key": key}


# --- addresses -------------------------------------------------------------------------------------------------------


def base_address(settings: "Settings") -> str:
    """Where devices reach what authorities publish; empty: the settings do not tell."""
    if settings.pki.url or settings.endpoints.hurl:
        return (settings.pki.url or settings.endpoints.hurl or "").rstrip("/")
    host = f"[{settings.http.host}]" if ":" in settings.http.host else settings.http.host
    return f"http://{host}:{settings.http.port}" if settings.http.port else ""


def addresses(settings: "Settings", authority: Authority) -> "Urls":
    """What issued certificates say of CRL, OCSP and the issuer's certificate."""
    from provisioning.protocols.x509 import urls

    return urls(base_address(settings), authority)
