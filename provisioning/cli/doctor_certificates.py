"""What `doctor` asks authorities, the inventory of certificates, and the server certificate."""

import ssl
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import pairwise
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cryptography import x509

from provisioning.cli.certificates import standing, title, words
from provisioning.cli.doctor import Finding, Findings, Level
from provisioning.cli.doctor_machine import OTHERS_READ, OTHERS_WRITE
from provisioning.contexts import Files
from provisioning.core import ca, chain, importing, pki, publish
from provisioning.model.refusal import Refusal
from provisioning.store import authorities, diagnosis
from provisioning.store.sealing import SealError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from provisioning.cli.doctor_database import Opened
    from provisioning.model.certificate import Authority
    from provisioning.settings import Settings
    from provisioning.store.database import Database, Tx

AUTHORITY_NEAR: Final = timedelta(days=365)
NEAR: Final = timedelta(days=30)
SERVER: Final = "server certificate"


class _Undo(Exception):  # noqa: N818 - it ends a rehearsal
    """Rolls a rehearsal back."""


async def of_registry(settings: "Settings", opened: "Opened") -> Findings:
    now = datetime.now(UTC)
    async with opened.database.read() as tx:
        every = await authorities.every(tx)
        inventory = await diagnosis.inventory(tx, now, now + NEAR)
    for each in _default(every):
        yield each
    for authority in every:
        for each in await _authority(settings, opened.database, authority, now):
            yield each
    for each in _devices(inventory):
        yield each


# --- authorities -----------------------------------------------------------------------------------------------------


def _default(every: "Sequence[Authority]") -> list[Finding]:
    name = "default authority"
    if found := next((each for each in every if each.is_default), None):
        return [Finding(name, Level.OK, title(found))]
    if every:
        return [Finding(name, Level.PROBLEM, "there is none: nothing can be issued unless it names an authority",
                        "gatehouse ca default NAME, or gatehouse ca create NAME --default")]  # fmt: skip
    return [Finding(name, Level.WARNING, "there is none yet", "the first start makes one; or gatehouse ca create NAME")]


async def _authority(
    settings: "Settings", database: "Database", authority: "Authority", now: datetime
) -> list[Finding]:
    name = f"authority {title(authority)}"
    state = standing(authority, now)
    found = []
    if authority.is_default or state in {"valid", "not yet valid"}:
        found += _life(name, authority, state, now)
    if state not in {"expired", "distrusted"}:
        found += _path(name, authority, now)
    if authority.has_key:
        found += await _key(name, settings, database, authority, now)
    if found:
        return found
    kind = authority.key_type if authority.has_key else f"{authority.key_type}, trusted only"
    told = f"{kind}, until {authority.not_after:%Y-%m-%d}"
    return [
        Finding(name, Level.OK if state == "valid" else Level.INFO, told if state == "valid" else f"{state}; {told}")
    ]


def _life(name: str, authority: "Authority", state: str, now: datetime) -> list[Finding]:
    advice = f"gatehouse ca rotate {authority.name}"
    until = f"{authority.not_after:%Y-%m-%d}"
    if state == "expired":
        return [Finding(name, Level.PROBLEM, f"expired on {until}, and it is the default", advice)]
    if state == "not yet valid":
        return [Finding(name, Level.PROBLEM, f"is not valid before {authority.not_before:%Y-%m-%d %H:%M}",
                        "is this machine's clock right?")]  # fmt: skip
    if authority.not_after - now < AUTHORITY_NEAR:
        return [Finding(name, Level.WARNING, f"expires on {until}: nothing that it issues lives longer", advice)]
    return []


def _path(name: str, authority: "Authority", now: datetime) -> list[Finding]:
    """Does it still lead up to its anchor?"""
    try:
        path = ca.path_of(authority)
        for below, above in pairwise(path):
            if not chain.is_issued_by(below, above):
                return [Finding(name, Level.PROBLEM, f"{chain.words(above.subject)} did not issue "
                                f"{chain.words(below.subject)}: its chain is damaged", "import it anew")]  # fmt: skip
        chain.check_path(path, now, "its chain")
    except Refusal as refusal:
        return [Finding(name, Level.PROBLEM, importing.words(refusal), "rotate it to one whose chain holds")]
    except chain.UNREADABLE as error:
        return [Finding(name, Level.PROBLEM, f"its chain cannot be read: {error}"[:200], "import it anew")]
    return []


async def _key(
    name: str, settings: "Settings", database: "Database", authority: "Authority", now: datetime
) -> list[Finding]:
    """Does its key open, belong to its certificate, and sign a CRL? The CRL is not kept, nor is its number."""
    try:
        async with database.begin() as tx:
            await _sign(tx, settings, authority, now)
    except _Undo:
        return []
    except SealError as error:
        return [
            Finding(name, Level.PROBLEM, f"its key does not open: {error}", "restore the database or the master key")
        ]
    except Refusal as refusal:
        said = words(refusal, name) or importing.words(refusal)
        return [Finding(name, Level.PROBLEM, f"its CRL cannot be made: {said}", "see above")]
    return [Finding(name, Level.PROBLEM, "its key is not that of its certificate", "restore the database")]


async def _sign(tx: "Tx", settings: "Settings", authority: "Authority", now: datetime) -> None:
    """Raises: _Undo, when all is well."""
    issuer, _ = await ca.signer(tx, authority)
    if issuer.key.public_key() != issuer.certificate.public_key():
        return
    await publish.make_crl(tx, authority, now=now, validity=timedelta(days=settings.pki.crl_days))
    raise _Undo


# --- devices ---------------------------------------------------------------------------------------------------------


def _devices(inventory: diagnosis.Inventory) -> list[Finding]:
    name, found = "device certificates", []
    if inventory.expired:
        found.append(Finding(name, Level.WARNING, f"those of {inventory.expired:,} devices have expired",
                             "gatehouse cert list --status expired; renew them, or revoke what is gone"))  # fmt: skip
    if inventory.expiring:
        found.append(Finding(name, Level.WARNING, f"those of {inventory.expiring:,} devices expire within {NEAR.days} "
                             "days", f"gatehouse cert list --expires-within {NEAR.days}"))  # fmt: skip
    if not found:
        found.append(Finding(name, Level.OK, f"devices with one: {inventory.devices:,}"))
    if inventory.waiting:
        told = f"{inventory.waiting:,} certificates were renewed, and their devices have not used the new ones yet"
        if inventory.urgent:
            found.append(Finding(name, Level.WARNING, f"{told}; {inventory.urgent:,} of the old ones expire within "
                                 f"{NEAR.days} days", "bring the new ones to the devices"))  # fmt: skip
        else:
            found.append(Finding(name, Level.INFO, told))
    return found


# --- server ----------------------------------------------------------------------------------------------------------


async def of_server(settings: "Settings") -> Findings:
    """The files of `[tls]`, or the certificate that the service made for itself."""
    tls, own = settings.tls, settings.tls.certificate is None
    certificate = tls.certificate or settings.data_dir / "tls" / "server.pem"
    key = certificate if own else tls.key or certificate
    if own and tls.key is not None:
        yield Finding(SERVER, Level.PROBLEM, "tls.key is set, and tls.certificate is not", "set both, or neither")
    if own and not certificate.exists():
        yield Finding(SERVER, Level.INFO, "there is none yet: the service makes one at its start")
    else:
        again = f"remove {certificate}, and the service makes another one" if own else (
            "correct tls.certificate and tls.key")  # fmt: skip
        leaf, found = _server_files(certificate, key, again, own=own)
        if leaf is not None:
            found += _names(settings, leaf, own=own)
        for each in found or [Finding(SERVER, Level.OK, str(certificate))]:
            yield each
    for host in tls.hosts:
        for each in _host(host.certificate, host.key or host.certificate):
            yield each


def _host(certificate: "Path", key: "Path") -> list[Finding]:
    """A pair of `tls.hosts`: as the main one, and it must have a name by which it is chosen."""
    leaf, found = _server_files(certificate, key, "correct tls.hosts", own=False)
    names = _host_names(certificate)
    if leaf is not None and not names:
        found.append(Finding(SERVER, Level.PROBLEM, "has no host name by which it could be chosen",
                             "get one with DNS names in subjectAltName; the service does not start"))  # fmt: skip
    found = found or [Finding(SERVER, Level.OK, f"for {', '.join(names)}")]
    return [replace(each, check=f"{SERVER} {certificate}") for each in found]


def _host_names(certificate: "Path") -> list[str]:
    """By which names a pair of `tls.hosts` is chosen; none, where it is not."""
    try:
        return [*Files(certificate, certificate).hosts()]
    except (OSError, Refusal):
        return []


def _server_files(
    certificate: "Path", key: "Path", again: str, *, own: bool
) -> tuple[x509.Certificate | None, list[Finding]]:
    """The certificate, unless it cannot be used, and what is wrong with it. `again`: what to do about the files."""
    try:
        leaf, *above = pki.read_certificates(certificate.read_bytes())
        mode = key.stat().st_mode
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key, password=lambda: "")  # an encrypted key would ask the terminal
    except ssl.SSLError as error:
        said = f"{key} is not the key of {certificate}" if error.reason == "KEY_VALUES_MISMATCH" else (
            f"the key in {key} cannot be read: not PEM, encrypted, or damaged")  # fmt: skip
        return None, [Finding(SERVER, Level.PROBLEM, said, again)]
    except OSError as error:
        return None, [Finding(SERVER, Level.PROBLEM, f"cannot read {error.filename}: {error.strerror}", again)]
    except Refusal as refusal:
        return None, [Finding(SERVER, Level.PROBLEM, f"{certificate}: {importing.words(refusal)}", again)]
    found = []
    if stat.S_IMODE(mode) & (OTHERS_READ | OTHERS_WRITE):
        found.append(Finding(SERVER, Level.PROBLEM, f"others may read the key in {key}", f"chmod 600 {key}"))
    return leaf, [*found, *_order(leaf, above), *_server_life(leaf, own=own)]


def _order(leaf: x509.Certificate, above: "Sequence[x509.Certificate]") -> list[Finding]:
    for number, (one, other) in enumerate(pairwise([leaf, *above]), 1):
        if not chain.is_issued_by(one, other):
            return [Finding(SERVER, Level.PROBLEM, f"the chain is out of order: number {number + 1} "
                            f"({chain.words(other.subject)}) did not issue number {number} "
                            f"({chain.words(one.subject)})",
                            "first the server's certificate, then the one that issued it, and so on up")]  # fmt: skip
    return []


def _server_life(leaf: x509.Certificate, *, own: bool) -> list[Finding]:
    now, until = datetime.now(UTC), leaf.not_valid_after_utc
    advice = "the service renews it at its start" if own else "put a new one in its place: it is loaded as it comes"
    if now < leaf.not_valid_before_utc:
        return [Finding(SERVER, Level.PROBLEM, f"is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M}",
                        "is this machine's clock right?")]  # fmt: skip
    if now >= until:
        level = Level.WARNING if own else Level.PROBLEM
        return [Finding(SERVER, level, f"expired on {until:%Y-%m-%d}", advice)]
    if until - now < NEAR:
        return [Finding(SERVER, Level.WARNING, f"expires on {until:%Y-%m-%d}", advice)]
    return []


def _names(settings: "Settings", leaf: x509.Certificate, *, own: bool) -> list[Finding]:
    """Is it for every name by which devices are told to come?"""
    stated = settings.endpoints
    wanted = [host for url in (stated.murl, stated.hurl) if url and (host := urlsplit(url).hostname)]
    if own or "names" in settings.tls.model_fields_set:
        wanted += settings.tls.names
    has = [*chain.alternative_names(leaf)]  # and whoever comes by a name of `tls.hosts` is shown another certificate
    has += [x509.DNSName(name) for host in settings.tls.hosts for name in _host_names(host.certificate)]
    missing = [name for name in dict.fromkeys(wanted) if not any(_covers(each, name) for each in has)]
    if not missing:
        return []
    advice = f"add {'them' if len(missing) > 1 else 'it'} to tls.names, and restart" if own else (
        "get one with these names, or correct endpoints")  # fmt: skip
    return [
        Finding(SERVER, Level.WARNING, f"is not for {', '.join(missing)}: devices that check names refuse it", advice)
    ]


def _covers(name: x509.GeneralName, host: str) -> bool:
    """RFC 9525, 6.3: an asterisk stands for one label, the first."""
    if isinstance(name, x509.IPAddress):
        try:
            return name.value == ip_address(host)
        except ValueError:
            return False
    if not isinstance(name, x509.DNSName):
        return False
    has, wanted = name.value.lower(), host.lower().rstrip(".")
    return has == wanted or (has.startswith("*.") and wanted.partition(".")[2] == has[2:])
