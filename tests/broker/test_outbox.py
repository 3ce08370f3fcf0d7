"""What waits for a device, by a clock of the test's own."""

from collections.abc import Callable
from typing import Any

import pytest

from broker.deadlines import Deadlines
from broker.embedded import EmbeddedBroker, Limits
from broker.outbox import Outbox
from broker.pace import WINDOW
from provisioning.model.admission import SessionLimits
from provisioning.model.mqtt import Message
from tests.broker.test_client import Link


class Clock:
    """As much of a loop as deadlines need; time passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.due: Callable[[], None] | None = None

    def time(self) -> float:
        return self.now

    def call_later(self, _delay: float, callback: Callable[[], None]) -> Any:
        self.due = callback
        return self

    def cancel(self) -> None:
        self.due = None

    def passes(self, seconds: float) -> None:
        self.now += seconds
        if self.due is not None:
            self.due()


class Device(Link):
    """It takes everything, and tells what it got."""

    level = 4

    def __init__(self) -> None:
        super().__init__()
        self.got: list[tuple[bytes, int | None, bool]] = []
        self.is_writable = True

    def publish(self, message: Message, packet_id: int | None = None, *, dup: bool = False) -> bool:
        self.got.append((message.payload, packet_id, dup))
        return True

    @property
    def payloads(self) -> list[int]:
        return [int(payload) for payload, _, _ in self.got]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def broker(clock: Clock) -> EmbeddedBroker:
    made = EmbeddedBroker(Limits(max_inflight=1_000, max_queued=200))
    made.deadlines = Deadlines(clock)  # type: ignore[arg-type]  # all that it asks of a loop
    return made


def attached(broker: EmbeddedBroker, **limits: Any) -> tuple[Outbox, Device]:
    outbox, link = Outbox(broker), Device()
    outbox.attach(link, SessionLimits(**limits), keeps=True)
    return outbox, link


def deliver(outbox: Outbox, numbers: range, qos: int = 1) -> None:
    for number in numbers:
        outbox.deliver(Message("t", b"%d" % number, qos=qos), qos)


@pytest.mark.parametrize("qos", [0, 1])
def test_so_many_in_a_second_and_the_others_later(broker: EmbeddedBroker, clock: Clock, qos: int) -> None:
    outbox, link = attached(broker, down=50)
    deliver(outbox, range(120), qos)
    assert link.payloads == list(range(50))
    clock.passes(WINDOW / 2)
    assert len(link.got) == 50
    clock.passes(WINDOW / 2)
    assert link.payloads == list(range(100))
    deliver(outbox, range(120, 125), qos)
    clock.passes(WINDOW)
    assert link.payloads == list(range(125)), "in order, and nothing is lost"
    assert (broker.dropped, len(broker.deadlines)) == (0, 0)


def test_a_device_that_acknowledges_does_not_hasten_it(broker: EmbeddedBroker, clock: Clock) -> None:
    outbox, link = attached(broker, down=2)
    deliver(outbox, range(6))
    for packet_id in (1, 2):
        outbox.acknowledged(packet_id)
    link.is_writable = True
    outbox.send_waiting()
    assert link.payloads == [0, 1]
    assert len(broker.deadlines) == 1
    clock.passes(WINDOW)
    assert link.payloads == [0, 1, 2, 3]


def test_what_comes_again_counts(broker: EmbeddedBroker, clock: Clock) -> None:
    outbox, _ = attached(broker, down=3)
    deliver(outbox, range(3))
    outbox.detach()
    clock.passes(WINDOW)
    link = Device()
    outbox.attach(link, SessionLimits(down=2), keeps=True)
    outbox.send_waiting()
    deliver(outbox, range(3, 4))
    assert link.got == [(b"0", 1, True), (b"1", 2, True)]
    clock.passes(WINDOW)
    assert link.got[2:] == [(b"2", 3, True), (b"3", 4, False)]


def test_without_a_limit_nothing_is_counted(broker: EmbeddedBroker, clock: Clock) -> None:
    outbox, link = attached(broker)
    deliver(outbox, range(500), 0)
    assert len(link.got) == 500
    assert (outbox._second, outbox._sent) == (0.0, 0)


def test_what_is_paced_is_bounded(broker: EmbeddedBroker, clock: Clock) -> None:
    outbox, _ = attached(broker, down=1)
    deliver(outbox, range(300))
    assert (len(outbox), broker.dropped) == (201, 99)


@pytest.mark.parametrize(("inflight", "later"), [(0, 10), (3, 10), (7, 0), (9, 9)])
def test_what_is_stored(broker: EmbeddedBroker, clock: Clock, inflight: int, later: int) -> None:
    """What is under way counts with what waits; the oldest stay, as in any full queue."""
    outbox, _ = attached(broker, stored=5)
    deliver(outbox, range(inflight))
    outbox.detach()
    deliver(outbox, range(inflight, inflight + later))
    kept = max(inflight, min(5, inflight + later))
    assert (len(outbox), broker.dropped) == (kept, inflight + later - kept)
    link = Device()
    outbox.attach(link, SessionLimits(stored=5), keeps=True)
    outbox.send_waiting()
    assert link.payloads == list(range(kept))


def test_what_waits_when_the_device_goes(broker: EmbeddedBroker, clock: Clock) -> None:
    outbox, link = attached(broker, stored=5, down=2)
    deliver(outbox, range(100))
    deliver(outbox, range(100, 110), 0)
    assert len(outbox) == 110
    outbox.detach()
    assert (len(outbox), broker.dropped, link.payloads) == (5, 105, [0, 1])
    assert len(broker.deadlines) == 0
    assert outbox._held_bytes == 5


def test_nothing_is_left_of_a_session_that_is_forgotten(broker: EmbeddedBroker, clock: Clock) -> None:
    outbox, link = attached(broker, down=1)
    deliver(outbox, range(9))
    outbox.clear()
    assert (len(outbox), len(broker.deadlines), outbox._held_bytes) == (0, 0, 0)
    clock.passes(WINDOW)
    assert link.payloads == [0]


def test_a_writer_that_stops_taking_is_waited_for(broker: EmbeddedBroker, clock: Clock) -> None:
    outbox, link = attached(broker, down=5)
    link.is_writable = False
    deliver(outbox, range(3))
    assert (link.got, len(broker.deadlines)) == ([], 0)
    link.is_writable = True
    outbox.send_waiting()
    assert link.payloads == [0, 1, 2]
