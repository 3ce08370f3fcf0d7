"""The X.509 service of EnOS: applications apply for, renew and revoke certificates of devices.

Who may ask: applications that show the setting `pki.access_token`, as `Authorization: Bearer …` or in the header
`apim-accesstoken`. While there is no such token, clients on this very machine alone: neither others, nor what comes
through a proxy, nor a browser that was led here under another host name.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from hmac import compare_digest
from typing import Final
from uuid import uuid4

from aiohttp import hdrs, web

from provisioning.core import ca, certify, inventory, pki, registry
from provisioning.core.chain import malformed
from provisioning.model.certificate import Certificate
from provisioning.model.lifecycle import State
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device
from provisioning.protocols.enos import certificate_wire, wire
from provisioning.protocols.x509.wire import urls
from provisioning.settings import is_loopback
from provisioning.store import authorities, certificates, devices
from provisioning.store.database import Tx
from provisioning.web.body import read_json
from provisioning.web.operation import note, operation
from provisioning.web.world import WORLD, PkiPolicy, asked_host

LARGEST_BODY: Final = 32_768
PATH: Final = r"/connect-service/{version:v2\.0|v2\.1}/certificates"
TOKEN_HEADER: Final = "apim-accesstoken"  # noqa: S105 - a header's name
FORWARDED: Final = ("X-Forwarded-For", "X-Real-IP", hdrs.FORWARDED, "Via")


def routes(*, always_200: bool) -> Iterable[web.RouteDef]:
    """The application must hold `WORLD`, `METRICS` and `REQUEST_TIMEOUT`."""

    def refuse(refusal: Refusal) -> web.Response:
        status, body = certificate_wire.write_error(refusal, str(uuid4()))
        headers = {hdrs.WWW_AUTHENTICATE: "Bearer"} if status == 401 else {}  # noqa: PLR2004 - RFC 9110, 15.5.2
        return web.json_response(body, status=200 if always_200 else status, headers=headers)

    return (web.post(PATH, operation(wire.PROTOCOL, "certificates", serve, refuse)),)


async def serve(request: web.Request) -> web.Response:
    world = request.app[WORLD]
    check_access(request, world.pki.access_token)
    body = await read_json(request, LARGEST_BODY)
    if not isinstance(body, dict):
        raise wire.malformed("body")
    fields = body | dict(request.query)
    target = certificate_wire.read_target(fields)
    action = certificate_wire.read_action(fields, days=world.pki.leaf_days, most_days=world.pki.max_leaf_days)
    note(request, action=fields["action"])
    now = datetime.now(UTC).replace(microsecond=0)
    async with world.database.begin() as tx:
        device = await find(tx, target)
        note(request, product=device.product, device=device.key)
        data = await perform(tx, device, action, now, world.pki)
    note(request, certificate=data["certSN"])
    return web.json_response(certificate_wire.write_reply(data))


def check_access(request: web.Request, token: str | None) -> None:
    """Raises: Refusal NOT_PROVEN for a wrong token; UNSUPPORTED, when none is set and the peer is elsewhere."""
    if token is not None:
        scheme, _, bearer = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        shown = bearer.strip() if scheme.lower() == "bearer" else request.headers.get(TOKEN_HEADER, "")
        if not compare_digest(shown.encode("utf-8", "surrogateescape"), token.encode()):
            raise Refusal(Reason.NOT_PROVEN)
        return
    name = request.protocol.peername
    near = isinstance(name, tuple) and _is_this_machine(str(name[0])) and is_loopback(asked_host(request).strip("[]"))
    if not near or any(header in request.headers for header in FORWARDED):
        raise Refusal(Reason.UNSUPPORTED, rule="set pki.access_token to serve more than this machine")


def _is_this_machine(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


async def find(tx: Tx, target: certificate_wire.Target) -> Device:
    """Raises: Refusal UNKNOWN; NOT_ALLOCATED; MALFORMED, when the asset id is another device's."""
    found = await _find(tx, target)
    if found.state is State.REGISTERED:
        raise Refusal(Reason.NOT_ALLOCATED, serial=found.serial)
    return found


async def _find(tx: Tx, target: certificate_wire.Target) -> Device:
    named = await registry.device(tx, wire.PROTOCOL, target.product, target.key) if target.key else None
    if not target.asset:
        assert named is not None
        return named
    found = await devices.by_asset(tx, wire.PROTOCOL, target.asset)
    if named is not None:
        if named.asset != target.asset:
            raise malformed("assetId", "is not that of the device that productKey and deviceKey name")
        return named
    if not found or not found[0].key:
        raise Refusal(Reason.UNKNOWN, device=target.asset)
    if len(found) > 1:
        raise malformed("assetId", "is that of several devices: state productKey and deviceKey")
    return found[0]


async def perform(
    tx: Tx, device: Device, action: certificate_wire.Action, now: datetime, policy: PkiPolicy
) -> dict[str, object]:
    """What the reply says of it."""
    if isinstance(action, certificate_wire.Revoke):
        return await revoke(tx, device, action, now)
    authority = await ca.default(tx)
    at = urls(policy.base, authority)
    if isinstance(action, certificate_wire.Apply):
        await certify.check_name_is_free(tx, action.request.attribute("CN"), now=now)
        issued = await certify.issue_from_csr(
            tx, authority, action.request, now=now, days=action.days, device=device, urls=at
        )
        return certificate_wire.write_certificate(issued, authority, policy.base)
    current = await own_certificate(tx, device, action.serial)
    old = pki.read_certificate(current.der)
    key = action.request.key if action.request else old.public_key()
    if action.issue_authority:
        certificate_wire.check_issue_authority(action.issue_authority, key)
    if action.request and action.request.subject != old.subject:
        raise malformed("csr", "must have the subject of the certificate that it replaces")
    if action.request and key != old.public_key():
        request = replace(action.request, names=())  # they are not granted when a certificate is applied for, either
        issued = await certify.rekey(tx, authority, current, request, now=now, days=action.days, urls=at)
    else:
        issued = await certify.renew(tx, authority, current, now=now, days=action.days, urls=at)
    return certificate_wire.write_certificate(issued, authority, policy.base)


async def revoke(tx: Tx, device: Device, action: certificate_wire.Revoke, now: datetime) -> dict[str, object]:
    current = await own_certificate(tx, device, action.serial)
    if action.reason is None:
        await inventory.hold(tx, current, now=now)
    else:
        await inventory.revoke(tx, current, now=now, reason=action.reason)
    return {"certSN": current.serial}


async def own_certificate(tx: Tx, device: Device, serial: str) -> Certificate:
    """The device's certificate of this serial number, by an authority that signs here.

    Raises:
        Refusal: UNKNOWN, also for another device's: nobody learns of it here.
    """
    for each in await certificates.by_serial(tx, serial):
        authority = await authorities.by_id(tx, each.authority_id)
        if each.device_id == device.id and authority is not None and authority.has_key:
            return each
    raise Refusal(Reason.UNKNOWN, certificate=serial)
