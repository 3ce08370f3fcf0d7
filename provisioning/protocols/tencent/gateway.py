"""Gateways over MQTT: what one asks for is done, answered, and bites in its topic rights."""

import time
from collections.abc import Callable, Iterable
from functools import partial

from provisioning import log
from provisioning.core.gateway import Gateways
from provisioning.model.admission import Answer, TopicRights
from provisioning.model.identity import Identity
from provisioning.model.mqtt import Message
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.tencent.gateway_wire import (
    NOBODY,
    RESULTS,
    BindClaim,
    Entry,
    Request,
    Result,
    Verb,
    read_request,
    write_results,
    write_sub_devices,
)
from provisioning.protocols.tencent.mqtt_wire import Topics, gateway_reply

Results = list[tuple[Entry, Result]]


class GatewayDesk:
    """Serves the messages of gateways.

    `freshness`: how many seconds the timestamp of a binding may be off; 0: it is not checked.
    """

    def __init__(self, gateways: Gateways, *, freshness: int, clock: Callable[[], float] = time.time) -> None:
        self._gateways = gateways
        self._freshness = freshness
        self._clock = clock

    async def answer(self, identity: Identity, message: Message) -> Answer:
        """Every message gets an answer and a line; a failure of ours is told as -2 for each device."""
        started = time.perf_counter()
        request: Request | None = None
        outcome, more = "accepted", dict[str, object]()
        rights = None
        try:
            request = read_request(message.payload)
            payload, rights, refused = await self._serve(identity, request)
            if refused:
                outcome, more = "refused", {"results": refused}
        except Refusal as refusal:
            if refusal.reason is Reason.MALFORMED:
                outcome, more = "refused", {"reason": "malformed", "field": refusal.detail.get("field")}
                payload = write_results(str(refusal.detail.get("type", "")), [(NOBODY, Result.PARAMETER)])
            else:
                outcome, more = "failed", {"reason": str(refusal)}
                payload = _failed(request)
        except Exception:  # noqa: BLE001 - logged below with its traceback
            outcome, more = "failed", {"reason": "internal", "exc_info": True}
            payload = _failed(request)
        write = log.get().warning if outcome == "failed" else log.get().info
        write(
            "mqtt.gateway", protocol=identity.protocol, product=identity.product, device=identity.device,
            type=str(request.verb) if request else "", devices=len(request.entries) if request else 0, outcome=outcome,
            ms=round((time.perf_counter() - started) * 1000, 2), **more,
        )  # fmt: skip
        return Answer(reply=Message(gateway_reply(identity), payload, qos=message.qos), rights=rights)

    async def _serve(
        self, identity: Identity, request: Request
    ) -> tuple[bytes, Callable[[TopicRights], TopicRights] | None, list[int]]:
        """The answer, what becomes of the rights, and the codes that are not 0."""
        if request.verb is Verb.DESCRIBE:
            return write_sub_devices(await self._gateways.sub_devices(identity)), None, []
        results = await self._results(identity, request)
        refused = [int(result) for _, result in results if result is not Result.OK]
        return write_results(str(request.verb), results), _change(request.verb, results), refused

    async def _results(self, identity: Identity, request: Request) -> Results:
        """A code for each entry; what cannot be read, or is too old, is not asked for."""
        asked = [self._asked(entry) for entry in request.entries]
        claims = [each for each in asked if isinstance(each, BindClaim)]
        devices = [each for each in asked if isinstance(each, Identity)]
        match request.verb:
            case _ if not claims and not devices:
                outcomes = []
            case Verb.BIND:
                outcomes = await self._gateways.bind(identity, claims)
            case Verb.UNBIND:
                outcomes = await self._gateways.unbind(identity, devices)
            case Verb.ONLINE:
                outcomes = await self._gateways.online(identity, devices)
            case _:
                outcomes = await self._gateways.offline(identity, devices)
        answered = iter(outcomes)
        return [
            (entry, each if isinstance(each, Result) else RESULTS[next(answered)])
            for entry, each in zip(request.entries, asked, strict=True)
        ]

    def _asked(self, entry: Entry) -> BindClaim | Identity | Result:
        if isinstance(entry.asked, BindClaim) and not entry.asked.is_fresh(self._freshness, int(self._clock())):
            return Result.EXPIRED
        return entry.asked


def _failed(request: Request | None) -> bytes:
    entries = request.entries if request and request.entries else (NOBODY,)
    return write_results(str(request.verb) if request else "", [(entry, Result.SYSTEM) for entry in entries])


def _change(verb: Verb, results: Results) -> Callable[[TopicRights], TopicRights] | None:
    """What becomes of the rights. Only `online` gives any, and takes those of a device for which it is refused."""
    if verb is Verb.BIND:  # bound alone, a device is not there yet
        return None
    named = {f"{entry.product}/{entry.device}": result for entry, result in results}
    gained = [name for name, result in named.items() if verb is Verb.ONLINE and result is Result.OK]
    return partial(_changed, named.keys(), gained)


def _changed(named: Iterable[str], gained: Iterable[str], rights: TopicRights) -> TopicRights:
    return rights.without_others(named).with_others(gained) if isinstance(rights, Topics) else rights
