"""EST: Enrolment over Secure Transport (RFC 7030, with the corrections of RFC 8951), at /.well-known/est/[label/]….

A device proves who it is over TLS: by HTTP Basic, with its user name as in its vendor's MQTT login and its secret as
the password, or by the certificate that it has shown on this very connection. A TLS terminator in front of this service
cannot pass the latter on; behind one nothing is enrolled, because the connection that arrives here is plain.

The label, where there is one, names the authority; otherwise it is the default one. `fullcmc` and `serverkeygen` are
optional in the RFC and not served. Over plain HTTP only `cacerts` and `csrattrs` answer.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

from aiohttp import hdrs, web
from cryptography import x509

from provisioning.core import ca, enrol_certificate, pki
from provisioning.core.blocking import Blocker
from provisioning.model.certificate import Authority, Certificate
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device
from provisioning.protocols.x509 import wire
from provisioning.store import authorities
from provisioning.store.database import Tx
from provisioning.web.body import read_bytes
from provisioning.web.operation import Handler, note, operation
from provisioning.web.world import WORLD

ReadUser = Callable[[str], Identity | None]
"""Whom a user name names; None: it is not in this vendor's form."""

CERTS_ONLY: Final = "application/pkcs7-mime; smime-type=certs-only"
COUNTED: Final = frozenset({Reason.NOT_PROVEN, Reason.DISABLED})
"""Refusals that count towards a block, as those of MQTT logins do."""


def routes(read_users: Iterable[ReadUser], blocker: Blocker) -> Iterable[web.RouteDef]:
    """`read_users`: asked in turn. `blocker`: the one of the MQTT logins, so that a guess counts wherever it is made.

    The application must hold `WORLD`, `METRICS` and `REQUEST_TIMEOUT`.
    """
    est = _Est(tuple(read_users), blocker)

    def both(method: str, name: str, handler: Handler) -> Iterable[web.RouteDef]:
        served = operation(wire.PROTOCOL, f"est_{name}", handler, refuse)
        for path in (f"/.well-known/est/{name}", f"/.well-known/est/{{label:{wire.NAME}}}/{name}"):
            yield web.route(method, path, served)

    return (
        *both(hdrs.METH_GET, "cacerts", cacerts),
        *both(hdrs.METH_GET, "csrattrs", csrattrs),
        *both(hdrs.METH_POST, "simpleenroll", est.simpleenroll),
        *both(hdrs.METH_POST, "simplereenroll", est.simplereenroll),
    )


def refuse(refusal: Refusal) -> web.Response:
    """In words for people (RFC 7030, 4.2.3)."""
    status, words = wire.write_error(refusal)
    headers = {}
    if refusal.reason is Reason.NOT_PROVEN:
        headers[hdrs.WWW_AUTHENTICATE] = 'Basic realm="Gatehouse", charset="UTF-8"'
    return web.Response(status=status, text=words, headers=headers)


async def cacerts(request: web.Request) -> web.Response:
    """The authority, those above it, and its earlier generations that are still trusted (RFC 7030, 4.1)."""
    async with request.app[WORLD].database.read() as tx:
        authority = await _authority(tx, request)
        if authority.distrusted_at:
            raise Refusal(Reason.ILLEGAL_TRANSITION, authority=str(authority), state="distrusted", step="be an anchor")
        trusted = await authorities.trusted(tx, _now())
    earlier = [each for each in trusted if each.name == authority.name and each.id != authority.id]
    return _certs_only(path for each in (authority, *reversed(earlier)) for path in ca.path_of(each))


async def csrattrs(request: web.Request) -> web.Response:  # noqa: ARG001 - a handler's signature
    """RFC 7030, 4.5.2: nothing in particular is asked for."""
    return web.Response(status=204)


class _Est:
    def __init__(self, read_users: tuple[ReadUser, ...], blocker: Blocker) -> None:
        self._read_users = read_users
        self._blocker = blocker

    async def simpleenroll(self, request: web.Request) -> web.Response:
        """RFC 7030, 4.2.1. The earlier certificates of the device stay as they are."""
        body, world, now = await _read_request(request), request.app[WORLD], _now()
        async with world.database.begin() as tx:
            device, _ = await self._authenticate(tx, request, now)
            authority = await _authority(tx, request)
            issued = await enrol_certificate.enrol(
                tx, authority, device, pki.read_csr(body), now=now,
                days=min(world.pki.leaf_days, world.pki.max_leaf_days), urls=wire.urls(world.pki.base, authority),
            )  # fmt: skip
        return _issued(request, issued)

    async def simplereenroll(self, request: web.Request) -> web.Response:
        """RFC 7030, 4.2.2: the successor of the certificate that was shown, or of the latest with this subject."""
        body, world, now = await _read_request(request), request.app[WORLD], _now()
        async with world.database.begin() as tx:
            device, shown = await self._authenticate(tx, request, now)
            authority = await _authority(tx, request)
            issued = await enrol_certificate.reenrol(
                tx, authority, device, shown, pki.read_csr(body), now=now,
                days=min(world.pki.leaf_days, world.pki.max_leaf_days), urls=wire.urls(world.pki.base, authority),
            )  # fmt: skip
        return _issued(request, issued)

    async def _authenticate(self, tx: Tx, request: web.Request, now: datetime) -> tuple[Device, Certificate | None]:
        """Who asks, and with which certificate; what is said in the header comes before what was shown."""
        header = request.headers.get(hdrs.AUTHORIZATION)
        if header is None:
            return await enrol_certificate.by_certificate(tx, _shown(request), now=now)
        user, password = wire.read_basic(header) or ("", "")
        identity = next((found for read in self._read_users if (found := read(user))), None)
        if identity is None:
            raise Refusal(Reason.NOT_PROVEN)
        note(request, product=identity.product, device=identity.device)
        key = (identity, _address(request))
        if self._blocker.is_blocked(key):
            raise Refusal(Reason.BLOCKED)
        try:
            return await enrol_certificate.by_secret(tx, identity, password), None
        except Refusal as refusal:
            if refusal.reason in COUNTED:
                self._blocker.refused(key)
            raise


async def _read_request(request: web.Request) -> bytes:
    """Raises: Refusal UNSUPPORTED over plain HTTP; UNSUPPORTED_MEDIA_TYPE, TOO_LARGE, MALFORMED."""
    if not request.secure:
        raise Refusal(Reason.UNSUPPORTED, rule="certificates are issued over HTTPS alone (RFC 7030, 3.3)")
    if request.content_type != "application/pkcs10":
        raise Refusal(Reason.UNSUPPORTED_MEDIA_TYPE, field="the Content-Type (application/pkcs10 is taken): this")
    return await read_bytes(request, pki.LARGEST_CSR)


def _shown(request: web.Request) -> bytes:
    """The certificate of the peer of this connection, in DER. Raises: Refusal NOT_PROVEN, when it has shown none."""
    tls = request.transport.get_extra_info("ssl_object") if request.transport else None
    der = tls.getpeercert(binary_form=True) if tls else None
    if not der:
        raise Refusal(Reason.NOT_PROVEN)
    return bytes(der)


def _address(request: web.Request) -> str:
    name = request.protocol.peername
    return str(name[0]) if isinstance(name, tuple) else ""


async def _authority(tx: Tx, request: web.Request) -> Authority:
    """Raises: Refusal UNKNOWN."""
    label = request.match_info.get("label")
    return await (ca.find(tx, label) if label else ca.default(tx))


def _issued(request: web.Request, issued: Certificate) -> web.Response:
    if issued.identity:
        note(request, product=issued.identity.product, device=issued.identity.device)
    note(request, certificate=issued.serial)
    return _certs_only([x509.load_der_x509_certificate(issued.der)])


def _certs_only(certificates: Iterable[x509.Certificate]) -> web.Response:
    headers = {hdrs.CONTENT_TYPE: CERTS_ONLY, "Content-Transfer-Encoding": "base64"}
    return web.Response(body=wire.write_certs_only(list(certificates)), headers=headers)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
