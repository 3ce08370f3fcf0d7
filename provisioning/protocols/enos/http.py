"""The HTTP operations of EnOS. Each handler is the story of one request, in the order in which it happens."""

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final
from uuid import uuid4

from aiohttp import web

from provisioning.core.enrol import Description, admit_serial, allocated, recall
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device
from provisioning.protocols.enos import dps_wire, wire
from provisioning.web.body import read_json
from provisioning.web.operation import note, operation
from provisioning.web.world import WORLD, asked_host

LARGEST_BODY: Final = 16_384
SEGMENT: Final = r"{segment:dev|preview|[0-9]+(?:\.[0-9]+){1,3}}"
"""The vendor's page has the version 2.4.0 in the place where clients send the name of the service, `dev`."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def routes(*, always_200: bool) -> Iterable[web.RouteDef]:
    def refuse(refusal: Refusal) -> web.Response:
        request_id = str(uuid4())
        status, body = dps_wire.write_error(refusal, request_id)
        refusal.detail["request_id"] = request_id  # for the log: it is all that a device's report may have
        return web.json_response(body, status=200 if always_200 else status)

    def post(path: str, name: str, handler: Handler) -> web.RouteDef:
        return web.post(path, operation(wire.PROTOCOL, name, handler, refuse))

    return (
        post(f"/{SEGMENT}/bootstrap", "bootstrap", bootstrap),
        post(f"/{SEGMENT}/get/conn", "get_conn", get_conn),
    )


def _now() -> int:
    return time.time_ns() // 1_000_000


async def bootstrap(request: web.Request) -> web.Response:
    """The device names itself and its group; it gets its triple. An unknown device is registered by this call."""
    claim = dps_wire.read_bootstrap(await read_json(request, LARGEST_BODY), _now())
    note(request, group=claim.group, serial=claim.serial)
    device = await request.app[WORLD].enrolments.enrol(claim)
    return _triple(request, device)


async def get_conn(request: web.Request) -> web.Response:
    """A registered device gets its triple, or a gateway that of a device behind it."""
    claim = dps_wire.read_get_conn(await read_json(request, LARGEST_BODY), _now())
    note(request, serial=claim.caller.serial)
    async with request.app[WORLD].database.begin() as tx:
        if claim.branch is not None:
            group, gateway = await recall(tx, claim.caller)
            if gateway.disabled:
                raise Refusal(Reason.DISABLED)
            note(request, serial=claim.branch_serial)
            device = await admit_serial(tx, group, claim.branch_serial, Description(name=claim.branch_serial))
        elif claim.sub is not None:
            await recall(tx, claim.caller)
            note(request, serial=claim.sub.serial)
            _, device = await recall(tx, claim.sub)
        else:
            _, device = await recall(tx, claim.caller)
    return _triple(request, device)


def _triple(request: web.Request, device: Device) -> web.Response:
    allocated(device)
    note(request, product=device.product, device=device.key)
    host, endpoints = asked_host(request), request.app[WORLD].endpoints
    murl = endpoints.murl(host, tls=device.certificate_login)
    return web.json_response(dps_wire.write_triple(device, murl, endpoints.hurl(host)))
