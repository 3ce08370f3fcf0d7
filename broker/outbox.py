"""What is under way to one device, and what waits for it: bounded, in order, as fast as its protocol takes it."""

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from broker import pace
from broker.seat import Link
from provisioning.model.admission import UNLIMITED, SessionLimits
from provisioning.model.mqtt import Message

if TYPE_CHECKING:
    from broker.embedded import EmbeddedBroker

LAST_PACKET_ID: Final = 0xFFFE
"""0xFFFF belongs to the activation."""


class Outbox:
    """The messages to a device; they outlive its connection if its session does."""

    __slots__ = (
        "_again", "_broker", "_held_bytes", "_inflight", "_keeps", "_late", "_limits", "_link", "_packet_id", "_queue",
        "_second", "_sent", "_window", "slot",
    )  # fmt: skip

    def __init__(self, broker: "EmbeddedBroker") -> None:
        self._broker = broker
        self._link: Link | None = None
        self._limits = UNLIMITED
        self._keeps = False
        self._window = 1
        self._packet_id = 0
        self._inflight: dict[int, Message] = {}
        self._again: deque[int] = deque()
        self._queue: deque[Message] = deque()
        self._late: deque[Message] = deque()
        self._held_bytes = 0
        self._second = 0.0
        self._sent = 0
        self.slot = 0

    def __len__(self) -> int:
        return len(self._inflight) + len(self._queue) + len(self._late)

    # --- the connection comes and goes ---

    def attach(self, link: Link, limits: SessionLimits, *, keeps: bool) -> None:
        """Serve a connection. `keeps`: the session outlives it. What waited leaves with `send_waiting`."""
        self._link = link
        self._limits = limits
        self._keeps = keeps
        self._window = min(self._broker.limits.max_inflight, link.receive_maximum, LAST_PACKET_ID)
        self._again = deque(self._inflight)

    def detach(self) -> None:
        """The connection has ended. QoS 0 is for who is there (MQTT 3.1.1, 4.3.1)."""
        self._link = None
        self._again.clear()
        self._broker.deadlines.drop(self)
        self._broker.dropped += len(self._late)
        while self._late:
            self._unqueued(self._late)
        most = self._limits.stored
        while most is not None and self._queue and len(self) > most:  # as a full queue does: the newest does not fit
            self._held_bytes -= len(self._queue.pop().payload)
            self._broker.dropped += 1

    def clear(self) -> None:
        self._broker.deadlines.drop(self)
        self._inflight.clear()
        self._again.clear()
        self._queue.clear()
        self._late.clear()
        self._held_bytes = 0
        self._keeps = False

    # --- in ---

    def deliver(self, message: Message, qos: int) -> None:
        """Send at once, or keep for later; what cannot be kept is counted as dropped."""
        link = self._link
        message = message if message.qos == qos else replace(message, qos=qos)
        if link is not None and link.is_writable and self._may_go_at_once(message):
            self._send(link, message)
        elif not self._has_room(message) or (link is None and not (qos and self._keeps)):
            self._broker.dropped += 1
        else:
            (self._queue if qos else self._late).append(message)
            self._held_bytes += len(message.payload)

    def _may_go_at_once(self, message: Message) -> bool:
        if self._limits.down and not self._is_in_time():
            return False
        if not message.qos:
            return not self._late
        return self._has_window and not self._queue and (not self._inflight or self._has_room(message))

    @property
    def _has_window(self) -> bool:
        return len(self._inflight) - len(self._again) < self._window

    def _has_room(self, message: Message) -> bool:
        limits = self._broker.limits
        if self._link is None and self._limits.stored is not None and len(self) >= self._limits.stored:
            return False
        held = self._held_bytes + len(message.payload)
        return len(self._queue) + len(self._late) < limits.max_queued and held <= limits.max_queued_bytes

    # --- out ---

    def _send(self, link: Link, message: Message) -> None:
        """Write a message that is not in the queue any more."""
        packet_id = None
        if message.qos:
            packet_id = self._packet_id = self._free_packet_id()
            self._inflight[packet_id] = message
            self._held_bytes += len(message.payload)
        if self._publish(link, message, packet_id):
            self._broker.delivered += 1
            return
        self._broker.dropped += 1
        if packet_id is not None:
            del self._inflight[packet_id]
            self._held_bytes -= len(message.payload)

    def _publish(self, link: Link, message: Message, packet_id: int | None, *, dup: bool = False) -> bool:
        if self._limits.down:
            self._second, self._sent = pace.count(self._second, self._sent, self._broker.deadlines.time())
        return link.publish(message, packet_id, dup=dup)

    def _free_packet_id(self) -> int:
        """The window is smaller than the range, so there is one."""
        packet_id = self._packet_id % LAST_PACKET_ID + 1
        while packet_id in self._inflight:
            packet_id = packet_id % LAST_PACKET_ID + 1
        return packet_id

    def acknowledged(self, packet_id: int) -> None:
        message = self._inflight.pop(packet_id, None)
        if message is None:
            return
        self._held_bytes -= len(message.payload)
        if packet_id in self._again:
            self._again.remove(packet_id)
        self.send_waiting()

    def send_waiting(self) -> None:
        """First again what was not acknowledged, then what has waited (MQTT 3.1.1, 4.4 and 4.6)."""
        link = self._link
        if link is None or not link.is_open:
            return
        while self._late and self._may_send(link):
            self._send(link, self._unqueued(self._late))
        while self._again and self._has_window and self._may_send(link):
            packet_id = self._again.popleft()
            if not self._publish(link, self._inflight[packet_id], packet_id, dup=True):
                self._held_bytes -= len(self._inflight.pop(packet_id).payload)
                self._broker.dropped += 1
        while self._queue and not self._again and self._has_window and self._may_send(link):
            self._send(link, self._unqueued(self._queue))

    def _unqueued(self, queue: deque[Message]) -> Message:
        message = queue.popleft()
        self._held_bytes -= len(message.payload)
        return message

    # --- the pace of the protocol ---

    def _may_send(self, link: Link) -> bool:
        return link.is_writable and (not self._limits.down or self._is_in_time())

    def _is_in_time(self) -> bool:
        """May a message go now, by the pace of the protocol? If not, what waits will go in time."""
        now = self._broker.deadlines.time()
        wait = pace.wait(self._second, self._sent, self._limits.down, now)
        if wait and not self.slot:
            self._broker.deadlines.set(self, now + wait)
        return not wait

    def expired(self, now: float) -> None:
        """The next second has begun."""
        del now
        self.send_waiting()
