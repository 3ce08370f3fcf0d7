"""Serves the device interface, which is our own. Contract: section 3."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from aiohttp import web

from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.ublox import machine
from provisioning.protocols.ublox import machine_wire as mw
from provisioning.protocols.ublox.http import reply, served
from provisioning.protocols.ublox.machine import Heard, Visit
from provisioning.web.body import read_json
from provisioning.web.operation import note
from provisioning.web.world import WORLD

F = TypeVar("F", bound=mw.Proven)


def routes() -> Iterable[web.RouteDef]:
    """The application must hold `WORLD`, `METRICS` and `REQUEST_TIMEOUT`."""
    return [
        web.post(mw.BOOTSTRAP, served("bootstrap", partial(_serve, mw.Bootstrap, machine.bootstrap, _bootstrapped))),
        web.post(mw.HEARTBEAT, served("heartbeat", partial(_serve, mw.Heartbeat, machine.heartbeat, _beaten))),
    ]


async def _serve(
    form: type[F],
    verb: Callable[[Visit, F], Awaitable[Heard]],
    writer: Callable[[Heard], Mapping[str, Any]],
    request: web.Request,
) -> web.Response:
    """The story of both calls: who is it, what does it say; then the verb, in one transaction."""
    world = request.app[WORLD]
    body = await read_json(request, mw.LARGEST_BODY)
    asked = form.read(body)
    assert isinstance(body, dict)
    note(request, device=asked.uid)
    try:
        async with world.database.begin() as tx:
            known = await machine.prove(tx, asked, body)
            note(request, account=known.account)
            visit = Visit(tx=tx, known=known, now=world.clock(), source=request.remote or "")
            heard = await verb(visit, asked)
    except Refusal as refusal:
        if refusal.reason is Reason.DUPLICATE and refusal.detail.get("field") == "device":
            raise Refusal(Reason.DUPLICATE, field="ROTPublicUID") from refusal
        raise
    note(request, state=str(mw.state_of(heard.module)))
    if heard.refusal is not None:
        raise heard.refusal
    return reply(writer(heard))


def _bootstrapped(heard: Heard) -> mw.Bootstrapped:
    return mw.write_bootstrapped(heard.module, heard.commands)


def _beaten(heard: Heard) -> mw.Beaten:
    return mw.write_beaten(heard.commands)
