"""Serves a session that must be pushed a secret, until the device has it.

No client subscribes to the topic of the push: it is sent unasked. It is repeated until a PUBACK or a good reply comes;
until then the device may publish nothing else. It knows no vendor: the admission carries topic, payload and times.
Source: EnOS reference, section 9.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from broker import packets
from broker.packets import Puback, Publish, Subscribe, Unsubscribe
from broker.seat import FAILURE, Link, Seat, Served, refused_subscription
from provisioning.model.admission import Admission, Push
from provisioning.model.mqtt import Message

log = structlog.get_logger()

PACKET_ID: Final = 0xFFFF
"""Of every push. The broker never uses it."""


class Activation:
    """The seat of a session with a push. `enter` takes the subscriptions granted here and gives the seat in the
    broker, for the rest of what the device wants."""

    def __init__(
        self,
        link: Link,
        admission: Admission,
        push: Push,
        *,
        enter: Callable[[Mapping[str, int]], Seat],
        on_acknowledged: Callable[[Admission], None],
        max_filters: int,
    ) -> None:
        self._link = link
        self._admission = admission
        self._push = push
        self._enter = enter
        self._on_acknowledged = on_acknowledged
        self._max_filters = max_filters
        self._filters: dict[str, int] = {}
        self._inner: Seat | None = None
        self._sent = 0
        self._unasked = 0
        self._acknowledged = False
        self._told = False
        self._started = time.monotonic()
        self._timer = self._later(push.delay)

    # --- the push ---

    def _later(self, delay: float) -> asyncio.TimerHandle | None:
        return asyncio.get_running_loop().call_later(delay, self._due)

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
        self._link.publish(self._push.message, PACKET_ID, dup=self._sent > 0 and not self._acknowledged)
        self._sent += 1
        self._cancel()
        self._timer = self._later(self._push.interval)

    def _acknowledge(self) -> None:
        self._cancel()
        if self._acknowledged:
            return
        self._acknowledged = True
        self._on_acknowledged(self._admission)
        self._tell("accepted")
        if self._filters:
            self._inner = self._enter(self._filters)

    def _not_yet(self) -> None:
        """The device was not ready for the push, though its MQTT library may have acknowledged the packet."""
        if self._timer is None and self._unasked <= self._push.repeats:
            self._timer = self._later(self._push.interval)

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
                if code < FAILURE:
                    self._acknowledge()
            case Publish(message=message) if message.topic == self._push.reply_topic:
                if packet.packet_id is not None:
                    self._link.write(packets.write_puback(packet.packet_id))
                if self._push.accepts(message.payload):
                    self._acknowledge()
                else:
                    self._not_yet()
            case _ if self._inner is not None:
                self._inner.receive(packet)
            case Subscribe():
                self._subscribe(packet)
            case Unsubscribe():
                for topic_filter in packet.filters:
                    self._filters.pop(topic_filter, None)
                self._link.write(packets.write_unsuback(packet.packet_id, [0] * len(packet.filters), self._link.level))
            case Publish() if self._acknowledged:
                self._inner = self._enter(self._filters)
                self._inner.receive(packet)
            case Publish():
                self._forbid(packet)

    def _subscribe(self, packet: Subscribe) -> None:
        codes = []
        covered = False
        for topic_filter, qos in packet.filters:
            allowed = self._admission.rights.may_subscribe(topic_filter) and len(self._filters) < self._max_filters
            codes.append(min(qos, 1) if allowed else refused_subscription(self._link.level))
            if allowed:
                self._filters[topic_filter] = min(qos, 1)
                covered = covered or packets.matches(topic_filter, self._push.message.topic)
        self._link.write(packets.write_suback(packet.packet_id, codes, self._link.level))
        if self._acknowledged:
            self._inner = self._enter(self._filters)
        elif covered:
            self._send()

    def _forbid(self, packet: Publish) -> None:
        if packet.packet_id is not None:
            self._link.write(packets.write_puback(packet.packet_id))
        answer = self._admission.conduct.on_forbidden(self._admission.identity, packet.message)
        if answer.to_publisher is not None:
            self._link.publish(Message(answer.to_publisher.topic, answer.to_publisher.payload))
        if answer.close:
            self._link.close("forbidden_publish")

    # --- the connection ---

    def writable(self) -> None:
        if self._inner is not None:
            self._inner.writable()

    def gone(self, *, clean: bool) -> None:
        self._cancel()
        if self._sent and clean:
            self._tell("accepted", reason="disconnected")
        else:
            self._tell("failed", reason="connection_lost")
        if self._inner is not None:
            self._inner.gone(clean=clean)
