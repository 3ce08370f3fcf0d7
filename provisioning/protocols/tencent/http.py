"""The HTTP operations of Tencent: registration with signed headers, and that of older C firmware.

Order of the checks: rate of the address, fields, product, signature, freshness, repetition, rate of the product,
switch, device. What comes before the signature is alike for products that there are and that there are not.
"""

import ipaddress
import time
from collections.abc import Iterable
from typing import Final
from uuid import uuid4

from aiohttp import web

from provisioning.core.enrol import NOBODY, Again
from provisioning.core.rates import Rates
from provisioning.core.register import Request
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.tencent import answers, certificates, payload, rows, wire
from provisioning.protocols.tencent.nonces import Nonces
from provisioning.sections import Tencent as Settings
from provisioning.store.registrations import Standing
from provisioning.web.body import read_bytes
from provisioning.web.operation import Handler, note, operation
from provisioning.web.world import WORLD

LARGEST_BODY: Final = 16_384
UNCHECKED_WINDOW: Final = 600.0
"""Seconds that a proof is remembered where timestamps are not checked."""


class Operations:
    """What devices call. The application must hold `WORLD`, `METRICS` and `REQUEST_TIMEOUT`."""

    def __init__(self, settings: Settings) -> None:
        self._has_own_status = settings.error_http_status == "rest"
        self._registrar = Registrar(settings)

    def routes(self) -> Iterable[web.RouteDef]:
        handler = operation(wire.PROTOCOL, "register_dev", self._registrar.register_legacy, self._refuse_legacy)
        return (web.post(wire.LEGACY_PATH, handler),)

    def register(self) -> Handler:
        """The operation `register`, for who dispatches its path, which protocols share."""
        return operation(wire.PROTOCOL, "register", self._registrar.register, self._refuse)

    def _refuse(self, refusal: Refusal) -> web.Response:
        request_id = str(uuid4())
        status, body = answers.write_error(refusal, request_id)
        refusal.detail["request_id"] = request_id  # for the log: it is all that a device's report may have
        return _json(body, status if self._has_own_status else 200)

    def _refuse_legacy(self, refusal: Refusal) -> web.Response:
        status, body = answers.write_legacy_error(refusal)
        return _json(body, status if self._has_own_status else 200)


def _json(body: dict[str, object], status: int = 200) -> web.Response:
    return web.Response(text=answers.compact(body), status=status, content_type="application/json")


class Registrar:
    """Both operations, and what they remember of those who came before."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._again = Again(settings.reregister)
        self._addresses = Rates(settings.rate_per_address, clock=time.monotonic)
        self._products = Rates(settings.rate_per_product, clock=time.monotonic)
        self._nonces = Nonces(window=2 * settings.freshness or UNCHECKED_WINDOW, clock=time.monotonic)

    async def register(self, request: web.Request) -> web.Response:
        """A device with its product's secret gets a key, or a certificate."""
        self._check_rate(request)
        body = await read_bytes(request, LARGEST_BODY)
        claim = wire.read_register(
            lambda name: request.headers.getall(name, ()), request.rel_url.raw_path, body,
            aliases=self._settings.host_aliases, now=_now(),
        )  # fmt: skip
        standing = await self._proven(request, claim)
        product = standing.credential.product
        assert product is not None
        if product.certificate_login:
            plaintext = await certificates.register(
                request, self._ask(standing), claim, organization=self._settings.organization
            )
        elif claim.encryption == payload.CERTIFICATE_ENCRYPTION:
            raise wire.malformed("EncryptionType")
        elif claim.certificate is not None:
            raise wire.malformed("ClientCert")
        else:
            plaintext = await self._psk(request, standing)
        request_id = str(uuid4())
        note(request, request_id=request_id)
        return _json(answers.write_answer(payload.encrypt(plaintext, product.secret), request_id))

    async def register_legacy(self, request: web.Request) -> web.Response:
        """As `register`, for firmware whose answers have room for a key and for nothing else."""
        self._check_rate(request)
        claim = wire.read_legacy(await read_bytes(request, LARGEST_BODY), now=_now())
        standing = await self._proven(request, claim)
        product = standing.credential.product
        assert product is not None
        if product.certificate_login:
            raise wire.malformed("productId")
        plaintext = await self._psk(request, standing)
        return _json(answers.write_legacy_answer(payload.encrypt(plaintext, product.secret)))

    async def _psk(self, request: web.Request, standing: Standing) -> bytes:
        registered = await request.app[WORLD].registrations.register(self._ask(standing))
        return payload.write_psk(registered.secret)

    def _ask(self, standing: Standing) -> Request:
        return Request(standing=standing, again=self._again, secret=rows.FORMS.device_secret())

    def _check_rate(self, request: web.Request) -> None:
        name = request.protocol.peername
        if not self._addresses.take(_network(str(name[0])) if isinstance(name, tuple) else ""):
            raise Refusal(Reason.RATE_LIMITED)

    async def _proven(self, request: web.Request, claim: wire.Register | wire.LegacyRegister) -> Standing:
        """What the registry knows of a claimant that has proven its product's secret, just now and not before.

        Raises:
            Refusal: UNKNOWN, where that is said; NOT_PROVEN, STALE, RATE_LIMITED.
        """
        note(request, product=claim.product, device=claim.device)
        standing = await request.app[WORLD].registrations.look_up(claim.identity)
        product, device = standing.credential.product, standing.credential.device
        if product is None and not self._settings.hide_unknown_product:
            raise Refusal(Reason.UNKNOWN)
        proven = claim.proven_by(product.secret if product else NOBODY)
        if product is None or not proven:
            raise Refusal(Reason.NOT_PROVEN, known=product is not None)  # for the log alone
        if not claim.is_fresh(self._settings.freshness):
            raise Refusal(Reason.STALE)
        is_new = self._nonces.use(claim.proof)
        if not is_new and device is not None and device.activated:  # else an answer was lost, perhaps
            raise Refusal(Reason.NOT_PROVEN, repeated=True)
        if not self._products.take(product.id):
            raise Refusal(Reason.RATE_LIMITED, limit="product")
        return standing


def _network(address: str) -> str:
    """Who counts as one address: of IPv6 the first 64 bits, which one subscriber has (RFC 6177)."""
    if ":" not in address:
        return address
    ip = ipaddress.IPv6Address(address.partition("%")[0])
    return str(ip.ipv4_mapped or ipaddress.IPv6Network((int(ip) >> 64 << 64, 64)))


def _now() -> int:
    return int(time.time())
