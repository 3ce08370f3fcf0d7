"""Serves a session that must be pushed a secret, until the device has it.

No client subscribes to the topic of the push: it is sent unasked. It is repeated until a PUBACK or a good reply comes;
until then the device may publish nothing else. It knows no vendor: the admission carries topic, payload and times.
Source: EnOS reference, section 9.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import structlog

from broker import packets
from broker.packets import Puback, Publish, Subscribe, Unsubscribe
from broker.seat import FAILURE, Link, Seat, Served, refused_subscription
from broker.topics import is_served
from provisioning.model.admission import Admission, Push

log = structlog.get_logger()

PACKET_ID: Final = 0xFFFF
"""Of every push. The broker never uses it."""


class Activation:
    """The seat of a session with a push.

    `enter` takes the subscriptions granted here and gives the seat in the broker, for what else the device wants.
    `stored`: the client asked for a session that outlives the connection; `has_will`: its CONNECT carried one.
    """

    def __init__(
        self,
        link: Link,
        admission: Admission,
        push: Push,
        *,
        enter: Callable[[Mapping[str, int]], Seat],
        on_acknowledged: Callable[[Admission], None],
        max_filters: int,
        stored: bool = False,
        has_will: bool = False,
    ) -> None:
        self._link = link
        self._admission = admission
        self._push = push
        self._enter = enter
        self._on_acknowledged = on_acknowledged
        self._max_filters = max_filters
        self._stored = stored
        self._has_will = has_will
        self._filters: dict[str, int] = {}
        self._inner: Seat | None = None
        self._sent = 0
        self._asked = 0
        """Pushes that a SUBSCRIBE has brought; as many as those that come unasked."""
        self._unasked = 0
        self._acknowledged = False
        self._confirmed = False
        self._put_off = False
        self._told = False
        self._started = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._later(push.delay)

    # --- the push ---

    def _later(self, delay: float) -> None:
        self._cancel()
        self._timer = asyncio.get_running_loop().call_later(delay, self._due)

    def _due(self) -> None:
        """It is time for the next push, or to give up."""
        self._timer = None
        if not self._link.is_open:
            return
        if self._unasked > self._push.repeats:
            self._tell("failed", reason="unacknowledged")
            return
        self._unasked += 1
        self._send()

    def _send(self) -> None:
        repeated = self._sent > 0 and not self._acknowledged
        if not self._link.publish(self._push.message, PACKET_ID, dup=repeated):
            self._cancel()
            self._tell("failed", reason="maximum_packet_of_client")
            return
        self._sent += 1
        self._put_off = False
        self._later(self._push.interval)

    def _acknowledge(self) -> None:
        """The device has the packet. A library acknowledges it even when nobody listens: `_put_off` outlives this."""
        if not self._put_off:
            self._cancel()
        if self._acknowledged:
            return
        self._acknowledged = True
        self._on_acknowledged(self._admission)
        self._tell("accepted")
        if self._filters or self._stored or self._has_will:
            self._inner = self._enter(self._filters)

    def _not_yet(self) -> None:
        """The device was not ready for the push, though its MQTT library may acknowledge the packet."""
        self._put_off = True
        if self._timer is None and self._unasked <= self._push.repeats:
            self._later(self._push.interval)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self, outcome: str, **more: object) -> None:
        if self._told:
            return
        self._told = True
        identity = self._admission.identity
        log.info(
            "mqtt.activate", protocol=identity.protocol, product=identity.product, device=identity.device,
            outcome=outcome, acknowledged=self._acknowledged, pushes=self._sent,
            ms=round((time.monotonic() - self._started) * 1000, 1), **more,
        )  # fmt: skip

    # --- what the device sends ---

    def receive(self, packet: Served) -> None:
        match packet:
            case Puback(packet_id=packet_id, code=code) if packet_id == PACKET_ID:
                if self._sent and code < FAILURE:
                    self._acknowledge()
            case Publish(message=message) if message.topic == self._push.reply_topic:
                self._receive_reply(packet)
            case _ if self._inner is not None:
                self._inner.receive(packet)
            case Subscribe():
                self._subscribe(packet)
            case Unsubscribe():
                self._unsubscribe(packet)
            case Publish() if self._acknowledged:
                self._inner = self._enter(self._filters)
                self._inner.receive(packet)
            case Publish():
                self._forbid(packet)
        if isinstance(packet, Subscribe):
            self._push_to_subscriber(packet)

    def _receive_reply(self, packet: Publish) -> None:
        if packet.packet_id is not None:
            self._link.write(packets.write_puback(packet.packet_id))
        if not self._sent:
            return  # to what?
        if self._push.accepts(packet.message.payload):
            self._confirmed = True
            self._put_off = False
            self._acknowledge()
        else:
            self._not_yet()

    def _subscribe(self, packet: Subscribe) -> None:
        codes = []
        for topic_filter, qos in packet.filters:
            known = topic_filter in self._filters
            if self._grants(topic_filter) and (known or len(self._filters) < self._max_filters):
                self._filters[topic_filter] = min(qos, 1)
                codes.append(min(qos, 1))
            else:
                codes.append(refused_subscription(self._link.level))
        self._link.write(packets.write_suback(packet.packet_id, codes, self._link.level))
        if self._acknowledged:
            self._inner = self._enter(self._filters)

    def _unsubscribe(self, packet: Unsubscribe) -> None:
        found = [self._filters.pop(topic_filter, None) for topic_filter in packet.filters]
        codes = [0x11 if qos is None else 0 for qos in found]  # 0x11: no subscription existed
        self._link.write(packets.write_unsuback(packet.packet_id, codes, self._link.level))

    def _grants(self, topic_filter: str) -> bool:
        return is_served(topic_filter) and self._admission.rights.may_subscribe(topic_filter)

    def _push_to_subscriber(self, packet: Subscribe) -> None:
        """A device that asks for the push gets it again, unless it has said that it holds the secret."""
        topic = self._push.message.topic
        if self._confirmed or self._asked > self._push.repeats:
            return
        if any(packets.matches(f, topic) and self._grants(f) for f, _ in packet.filters):
            self._asked += 1
            self._send()

    def _forbid(self, packet: Publish) -> None:
        if packet.packet_id is not None:
            self._link.write(packets.write_puback(packet.packet_id, 0x87 if self._link.level == 5 else 0))  # noqa: PLR2004 - the number of the version
        answer = self._admission.conduct.on_forbidden(self._admission.identity, packet.message)
        if answer.reply is not None:
            self._link.publish(replace(answer.reply, qos=0))
        if answer.close:
            self._link.close("forbidden_publish")

    # --- the connection ---

    def writable(self) -> None:
        if self._inner is not None:
            self._inner.writable()

    def gone(self, *, clean: bool, session_expiry: int | None = None) -> None:
        self._cancel()
        if self._sent and clean:
            self._tell("accepted", reason="disconnected")
        else:
            self._tell("failed", reason="connection_lost")
        if self._inner is not None:
            self._inner.gone(clean=clean, session_expiry=session_expiry)
        elif self._stored and self._filters and session_expiry != 0:
            # What was granted to a session that outlives the connection stays; its will was never the device's.
            self._enter(self._filters).gone(clean=True, session_expiry=session_expiry)
