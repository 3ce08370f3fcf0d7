"""What authorities publish: their certificates, CRLs and OCSP responses, below /pki/{name}-{generation}/.

Sources: RFC 5280, 4.2.1.13 and 4.2.2.1 (what the addresses in certificates lead to), RFC 2585 (media types), RFC 6960
appendix A and RFC 5019 section 6 (OCSP over HTTP, caching).
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import MappingProxyType
from typing import Final

from aiohttp import hdrs, web
from cryptography.x509 import ocsp

from provisioning.core import ca, pki, publish, revocation
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.x509 import wire
from provisioning.protocols.x509.crls import Crls
from provisioning.web.body import read_bytes
from provisioning.web.operation import Handler, Refuse, note, operation
from provisioning.web.world import WORLD

CA_AGE: Final = 86_400
"""Seconds for which a cache may keep an authority's certificate, which never changes."""
CRL_AGE: Final = 600
"""Seconds for which a cache may keep a CRL: it is good for days, but a revocation should not wait for so long."""
PEM_CHAIN: Final = "application/pem-certificate-chain"  # RFC 8555, 9.1
OCSP_RESPONSE: Final = "application/ocsp-response"

OCSP_ERRORS: Final[Mapping[Reason, bytes]] = MappingProxyType({
    Reason.MALFORMED: revocation.MALFORMED_REQUEST,
    Reason.TOO_LARGE: revocation.MALFORMED_REQUEST,
    Reason.UNSUPPORTED_MEDIA_TYPE: revocation.MALFORMED_REQUEST,
    Reason.UNKNOWN: revocation.UNAUTHORIZED,
    Reason.ILLEGAL_TRANSITION: revocation.UNAUTHORIZED,
    Reason.UNAVAILABLE: revocation.TRY_LATER,
})  # fmt: skip
"""All others are internal errors."""


def routes() -> Iterable[web.RouteDef]:
    """The application must hold `WORLD`, `METRICS` and `REQUEST_TIMEOUT`."""
    crls = Crls()
    at = f"/pki/{{authority:{wire.AUTHORITY}}}"

    async def crl(request: web.Request) -> web.Response:
        return await _crl(request, crls)

    def served(name: str, handler: Handler, refuse: Refuse = refuse) -> Handler:
        return operation(wire.PROTOCOL, name, handler, refuse)

    return (
        web.get(f"{at}/{{file:ca\\.(?:der|pem)}}", served("ca", certificate)),
        web.get(f"{at}/{{file:crl\\.(?:der|pem)}}", served("crl", crl)),
        web.get(f"{at}/ocsp/{{asked:.*}}", served("ocsp", ocsp_get, refuse_ocsp)),
        web.post(f"{at}/ocsp", served("ocsp", ocsp_post, refuse_ocsp)),
    )


def refuse(refusal: Refusal) -> web.Response:
    status, words = wire.write_error(refusal)
    if refusal.reason is Reason.ILLEGAL_TRANSITION and refusal.detail.get("state") == "without a key":
        status = 404  # whoever has its key publishes it
    return web.Response(status=status, text=words)


def refuse_ocsp(refusal: Refusal) -> web.Response:
    """RFC 6960, 4.2.1: in the protocol's own words, with status 200; such answers are not cached (RFC 5019, 6.2)."""
    body = OCSP_ERRORS.get(refusal.reason, revocation.INTERNAL_ERROR)
    return web.Response(body=body, content_type=OCSP_RESPONSE, headers={hdrs.CACHE_CONTROL: "no-store"})


async def certificate(request: web.Request) -> web.Response:
    """DER: the authority's own certificate. PEM: it and those above it."""
    name, generation = wire.read_authority(request.match_info["authority"])
    async with request.app[WORLD].database.read() as tx:
        authority = await ca.find(tx, name, generation)
    headers = {hdrs.CACHE_CONTROL: f"public, max-age={CA_AGE}"}
    if request.match_info["file"] == "ca.der":
        return web.Response(body=authority.certificate, content_type="application/pkix-cert", headers=headers)
    text = pki.write_pem(authority.certificate, *authority.chain)
    return web.Response(body=text.encode(), content_type=PEM_CHAIN, headers=headers)


async def _crl(request: web.Request, crls: Crls) -> web.Response:
    world, now = request.app[WORLD], _now()
    name, generation = wire.read_authority(request.match_info["authority"])
    found = await crls.get(
        world.database, name, generation, now=now, validity=timedelta(days=world.pki.crl_days)
    )  # fmt: skip
    headers = _dated(found.this_update, found.next_update) | {
        hdrs.CACHE_CONTROL: f"public, max-age={min(CRL_AGE, _left(found.next_update, now))}"
    }
    is_der = request.match_info["file"] == "crl.der"
    tag = f"{found.number}-{'der' if is_der else 'pem'}-{hashlib.sha256(found.der).hexdigest()[:16]}"
    headers[hdrs.ETAG] = f'"{tag}"'
    if any(each.value in {tag, "*"} for each in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    if is_der:
        return web.Response(body=found.der, content_type="application/pkix-crl", headers=headers)
    text = revocation.write_crl_pem(found.der)
    return web.Response(body=text.encode(), content_type="application/x-pem-file", headers=headers)


async def ocsp_get(request: web.Request) -> web.Response:
    """The request stands in the path, in base64: read from the path as it was sent, before anybody decodes it."""
    asked = revocation.read_ocsp_path(request.rel_url.raw_path.partition("/ocsp/")[2])
    response = await _ocsp(request, asked)
    read = ocsp.load_der_ocsp_response(response)
    if read.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return web.Response(body=response, content_type=OCSP_RESPONSE, headers={hdrs.CACHE_CONTROL: "no-store"})
    assert read.next_update_utc is not None
    age = _left(read.next_update_utc, _now())
    headers = _dated(read.this_update_utc, read.next_update_utc) | {
        hdrs.CACHE_CONTROL: f"max-age={age}, public, no-transform, must-revalidate",
        hdrs.ETAG: f'"{hashlib.sha256(response).hexdigest()[:32]}"',
    }
    return web.Response(body=response, content_type=OCSP_RESPONSE, headers=headers)


async def ocsp_post(request: web.Request) -> web.Response:
    """The media type is not looked at: what is no request in DER is refused as such."""
    asked = revocation.read_ocsp_request(await read_bytes(request, revocation.LARGEST_REQUEST))
    response = await _ocsp(request, asked)
    return web.Response(body=response, content_type=OCSP_RESPONSE, headers={hdrs.CACHE_CONTROL: "no-store"})


async def _ocsp(request: web.Request, asked: revocation.OcspRequest) -> bytes:
    """Whose certificate it is stands in the request, by hashes; the path is for people and for caches."""
    note(request, certificate=asked.serial)
    async with request.app[WORLD].database.begin() as tx:
        return await publish.answer_ocsp(tx, asked, now=_now())


def _dated(this_update: datetime, next_update: datetime) -> dict[str, str]:
    return {
        hdrs.LAST_MODIFIED: format_datetime(this_update, usegmt=True),
        hdrs.EXPIRES: format_datetime(next_update, usegmt=True),
    }


def _left(until: datetime, now: datetime) -> int:
    return max(0, int((until - now).total_seconds()))


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
