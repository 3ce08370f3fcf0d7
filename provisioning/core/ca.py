"""Certificate authorities: create, import, trust, rotate, distrust; a default one at first start."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from provisioning.core import chain, pki, signing
from provisioning.core.chain import malformed
from provisioning.core.pki import KeyType, PrivateKey
from provisioning.core.signing import Issuer
from provisioning.model.certificate import (
    NOBODY,
    Authority,
    AuthorityCreated,
    AuthorityDistrusted,
    AuthorityRestored,
    AuthorityRotated,
)
from provisioning.model.refusal import Reason, Refusal
from provisioning.store import authorities
from provisioning.store.database import Tx

DEFAULT_NAME: Final = "gatehouse"
AUTHORITY_YEARS: Final = 20


async def make_key(kind: KeyType = KeyType.P256) -> PrivateKey:
    """A new private key; RSA is made in a thread, so that the loop goes on."""
    if kind in {KeyType.P256, KeyType.P384}:
        return pki.new_key(kind)
    return await asyncio.to_thread(pki.new_key, kind)


async def create(
    tx: Tx,
    name: str,
    key: PrivateKey,
    *,
    now: datetime,
    common_name: str = "",
    organization: str = "",
    years: int = AUTHORITY_YEARS,
    path_length: int = 0,
    permitted_dns: Sequence[str] = (),
) -> Authority:
    """A new self-signed authority; the first one that can sign is the default.

    Raises:
        Refusal: DUPLICATE, when its name or its subject is taken; MALFORMED.
    """
    _check_name(name)
    await authorities.serialize(tx)
    subject = pki.make_subject(common_name or f"Gatehouse CA {name}", organization)
    if await authorities.find(tx, name):
        raise Refusal(Reason.DUPLICATE, field="authority")
    await _check_new_subject(tx, subject)
    certificate = signing.make_authority(
        subject,
        key,
        now=now,
        years=years,
        serial=pki.new_serial(),
        path_length=path_length,
        permitted_dns=permitted_dns,
    )
    return await _add(tx, name, 1, Issuer(certificate, key))


async def create_of_account(
    tx: Tx, name: str, key: PrivateKey, *, now: datetime, common_name: str, days: int
) -> Authority:
    """A self-signed authority for the modules of an account; nobody logs in here with what it issues.

    Raises:
        Refusal: DUPLICATE, when one of the house's has its subject; MALFORMED.
    """
    subject = pki.make_subject(common_name)
    await _check_new_subject(tx, subject)
    certificate = signing.make_authority(subject, key, now=now, days=days, serial=pki.new_serial())
    return await _add(tx, name, 1, Issuer(certificate, key), is_default=False, of_account=True)


async def import_(tx: Tx, name: str, issuer: Issuer) -> Authority:
    """A company's own authority, as `signing.read_authority` has checked it.

    Raises:
        Refusal: DUPLICATE, when the name is taken (for its next generation: `rotate`) or the certificate is known.
    """
    _check_name(name)
    await authorities.serialize(tx)
    if await authorities.find(tx, name):
        raise Refusal(Reason.DUPLICATE, field="authority")
    return await _add(tx, name, 1, issuer)


async def trust(tx: Tx, name: str, certificate: x509.Certificate) -> Authority:
    """An authority whose key is elsewhere, as `signing.read_anchor` has checked it.

    What it issued is known here only when it is adopted.

    Raises:
        Refusal: DUPLICATE.
    """
    _check_name(name)
    await authorities.serialize(tx)
    if await authorities.find(tx, name):
        raise Refusal(Reason.DUPLICATE, field="authority")
    return await _add(tx, name, 1, certificate)


async def rotate(
    tx: Tx,
    authority: Authority,
    successor: PrivateKey | Issuer | x509.Certificate,
    *,
    now: datetime,
    years: int = AUTHORITY_YEARS,
) -> Authority:
    """The next generation of an authority.

    `successor`: a new key for a self-signed one; what was read for one that others issue. The generation before issues
    no more; it is trusted until it expires, and signs its CRL and OCSP responses as ever.

    Raises:
        Refusal: ILLEGAL_TRANSITION, when it is retired already; MALFORMED, field `key`, when others issue it and no
            certificate from them comes along; DUPLICATE.
    """
    await authorities.serialize(tx)
    authority = await authorities.lock(tx, authority)
    if authority.retired_at:
        raise Refusal(Reason.ILLEGAL_TRANSITION, authority=str(authority), state="retired", step="rotate")
    if not isinstance(successor, Issuer | x509.Certificate):
        if authority.chain or not authority.has_key:
            raise malformed(
                "key", f"is not enough: {authority} was issued elsewhere, and so must its next generation be"
            )
        successor = Issuer(_next_generation(authority, successor, now, years), successor)
        await _check_new_subject(tx, successor.certificate.subject)
    await authorities.retire(tx, authority, now)
    new = await _add(tx, authority.name, authority.generation + 1, successor, is_default=authority.is_default)
    tx.emit(AuthorityRotated(device_id=0, identity=NOBODY, serial=new.serial))
    return new


def _next_generation(authority: Authority, key: PrivateKey, now: datetime, years: int) -> x509.Certificate:
    """As the one before, under its own name: a client that looks for the issuer of a certificate finds one."""
    old = pki.read_certificate(authority.certificate)
    base = pki.first_attribute(old.subject, "CN").removesuffix(f" G{authority.generation}")
    own_name = x509.NameAttribute(NameOID.COMMON_NAME, f"{base[:56]} G{authority.generation + 1}")
    basic = chain.extension(old, x509.BasicConstraints)
    constraints = chain.extension(old, x509.NameConstraints)
    trees = constraints.permitted_subtrees or () if isinstance(constraints, x509.NameConstraints) else ()
    return signing.make_authority(
        x509.Name([*(each for each in old.subject if each.oid != NameOID.COMMON_NAME), own_name]),
        key,
        now=now,
        years=years,
        serial=pki.new_serial(),
        path_length=(basic.path_length or 0) if isinstance(basic, x509.BasicConstraints) else 0,
        permitted_dns=[tree.value for tree in trees if isinstance(tree, x509.DNSName)],
    )


async def default(tx: Tx) -> Authority:
    """Raises: Refusal UNKNOWN, when there is none yet."""
    if found := await authorities.default(tx):
        return found
    raise Refusal(Reason.UNKNOWN, authority="default")


async def ensure_default(tx: Tx, key: PrivateKey, *, now: datetime) -> Authority:
    """The default authority, made with `key` when there is none. Of two processes that start at once one makes it."""
    if found := await authorities.default(tx):
        return found
    await authorities.serialize(tx)
    return await authorities.default(tx) or await create(tx, DEFAULT_NAME, key, now=now)


async def set_default(tx: Tx, authority: Authority, *, now: datetime) -> None:
    """Raises: Refusal ILLEGAL_TRANSITION, when it may not issue."""
    await authorities.serialize(tx)
    (await authorities.lock(tx, authority)).check_may_issue(now)
    await authorities.set_default(tx, authority)


async def distrust(tx: Tx, authority: Authority, *, now: datetime) -> Authority:
    """Accept nothing more that it issued. Its CRL and OCSP responses go on.

    Raises:
        Refusal: ILLEGAL_TRANSITION, when it is distrusted already; IN_USE, when it is the default: rotate it first.
    """
    authority = await authorities.lock(tx, authority)
    if authority.is_default:
        raise Refusal(Reason.IN_USE, authority=str(authority), rule="it is the default: rotate it, or set another one")
    if authority.distrusted_at:
        raise Refusal(Reason.ILLEGAL_TRANSITION, authority=str(authority), state="distrusted", step="distrust")
    await authorities.distrust(tx, authority, now)
    tx.emit(AuthorityDistrusted(device_id=0, identity=NOBODY, serial=authority.serial))
    return replace(authority, distrusted_at=now)


async def restore(tx: Tx, authority: Authority) -> Authority:
    """Trust it again. Raises: Refusal ILLEGAL_TRANSITION, when it is not distrusted."""
    authority = await authorities.lock(tx, authority)
    if not authority.distrusted_at:
        raise Refusal(Reason.ILLEGAL_TRANSITION, authority=str(authority), state="trusted", step="restore")
    await authorities.distrust(tx, authority, None)
    tx.emit(AuthorityRestored(device_id=0, identity=NOBODY, serial=authority.serial))
    return replace(authority, distrusted_at=None)


async def find(tx: Tx, name: str, generation: int | None = None) -> Authority:
    """A generation of an authority, the latest unless stated. Raises: Refusal UNKNOWN."""
    if found := await authorities.find(tx, name, generation):
        return found
    raise Refusal(Reason.UNKNOWN, authority=name if generation is None else f"{name}/{generation}")


async def _check_new_subject(tx: Tx, subject: x509.Name) -> None:
    """Issuer and serial number name a certificate: no two authorities that are made here share their subject."""
    if any(each.subject == subject.rfc4514_string() for each in await authorities.every(tx)):
        raise Refusal(Reason.DUPLICATE, field="subject")


def _check_name(name: str) -> None:
    plain = name.isascii() and name.replace("-", "").isalnum() and name == name.lower() and name[0] != "-"
    if not plain or len(name) > 40:  # noqa: PLR2004 - as the constraint authority_name has it
        raise malformed("name", "must be 1 to 40 lower-case letters, digits and hyphens")


async def _add(
    tx: Tx,
    name: str,
    generation: int,
    what: Issuer | x509.Certificate,
    *,
    is_default: bool | None = None,
    of_account: bool = False,
) -> Authority:
    """`is_default` None: when there is no other."""
    issuer, own = (what, what.certificate) if isinstance(what, Issuer) else (None, what)
    der = pki.der(own)
    if await authorities.by_certificate(tx, der):
        raise Refusal(Reason.DUPLICATE, field="certificate")
    if is_default is None:
        is_default = issuer is not None and await authorities.default(tx) is None
    added = await authorities.add(
        tx,
        Authority(
            name=name, generation=generation, certificate=der,
            chain=tuple(pki.der(each) for each in issuer.chain) if issuer else (),
            key_type=pki.key_type(pki.check_key(own.public_key(), "certificate")), has_key=issuer is not None,
            serial=pki.write_checked_serial(own.serial_number), subject=own.subject.rfc4514_string(),
            not_before=own.not_valid_before_utc, not_after=own.not_valid_after_utc,
            is_default=is_default and issuer is not None, of_account=of_account,
        ),
        pki.write_key(issuer.key) if issuer else "",
    )  # fmt: skip
    if generation == 1:
        tx.emit(AuthorityCreated(device_id=0, identity=NOBODY, serial=added.serial))
    return added


def path_of(authority: Authority) -> list[x509.Certificate]:
    """The authority's certificate and those above it."""
    return [x509.load_der_x509_certificate(der) for der in (authority.certificate, *authority.chain)]


async def signer(tx: Tx, authority: Authority) -> tuple[Issuer, bool]:
    """What signs for the authority, and whether it may still sign certificates, as it stands now.

    Raises:
        Refusal: ILLEGAL_TRANSITION, when it has no key here.
    """
    pem, may_issue = await authorities.key(tx, authority)
    if not pem:
        raise Refusal(Reason.ILLEGAL_TRANSITION, authority=str(authority), state="without a key", step="sign")
    own, *above = path_of(authority)
    return Issuer(own, pki.read_key(pem, ours=True), tuple(above)), may_issue
