import pytest
from amqtt.broker import RetainedApplicationMessage  # type: ignore[import-untyped]  # amqtt has no py.typed
from hypothesis import given
from hypothesis import strategies as st

from broker import packets
from broker.client import DeviceSession
from broker.tables import Retained, Subscriptions
from provisioning.model.mqtt import Message


def session(name: str) -> DeviceSession:
    made = DeviceSession()
    made.client_id = name
    return made


A, B = session("a"), session("b")


def retained(topic: str, payload: bytes = b"1", qos: int = 1) -> Message:
    return Message(topic, payload, qos=qos, retain=True)


def test_each_subscriber_once_with_its_highest_qos() -> None:
    table = Subscriptions()
    for topic_filter, qos in (("x/y", 0), ("x/+", 1), ("x/#", 0)):
        table.add(topic_filter, A, qos)
    table.add("x/#", B, 0)
    assert table.match("x/y") == {"a": 1, "b": 0}
    assert table.match("x") == {"a": 0, "b": 0}
    assert table.match("z") == {}


def test_a_subscription_replaces_the_earlier_one() -> None:
    table = Subscriptions()
    table.add("x", A, 1)
    table.add("x", A, 0)
    assert table["x"] == [(A, 0)]


FILTERS = st.sampled_from(["x", "x/y", "x/+", "x/#", "+/y", "#"])


@given(st.lists(st.tuples(st.booleans(), FILTERS, st.sampled_from([A, B]), st.integers(0, 1)), max_size=30))
def test_what_is_unsubscribed_leaves_nothing(steps: list[tuple[bool, str, DeviceSession, int]]) -> None:
    table, model = Subscriptions(), {}
    for adds, topic_filter, who, qos in steps:
        if adds:
            table.add(topic_filter, who, qos)
            model[topic_filter, who.client_id] = qos
        else:
            table.discard(topic_filter, who)
            model.pop((topic_filter, who.client_id), None)
    for topic in ("x", "x/y", "z/y"):
        expected: dict[str, int] = {}
        for (topic_filter, who_id), qos in model.items():
            if packets.matches(topic_filter, topic):
                expected[str(who_id)] = max(qos, expected.get(str(who_id), 0))
        assert table.match(topic) == expected
    for topic_filter in list(table):
        table.discard(topic_filter, A)
        table.discard(topic_filter, B)
    assert not table
    assert not table._wildcards._root.children


def test_rendering_the_table_costs_nothing() -> None:
    table = Subscriptions()
    for number in range(1_000):
        table.add(f"x/{number}", A, 0)
    assert repr(table) == "<1000 topic filters>"
    table.clear()
    assert table.match("x/1") == {}


def test_the_last_message_of_a_topic_is_retained() -> None:
    table = Retained(most=5, most_bytes=100)
    assert table.keep(A, retained("x", b"1"))
    assert table.keep(A, retained("x", b"2"))
    assert list(table.matching([("#", 1)])) == [(retained("x", b"2"), 1)]
    assert table.keep(A, retained("x", b""))
    assert table.keep(A, retained("x", b"")), "clearing what is not there is fine"
    assert not table
    assert not table._held


@pytest.mark.parametrize(("kept", "granted", "sent"), [(1, 1, 1), (1, 0, 0), (0, 1, 0)])
def test_qos_is_the_lower_of_the_two(kept: int, granted: int, sent: int) -> None:
    table = Retained(most=5, most_bytes=100)
    table.keep(A, retained("x", qos=kept))
    assert list(table.matching([("x", granted)])) == [(retained("x", qos=sent), sent)]


def test_overlapping_filters_bring_a_message_once_with_the_highest_qos() -> None:
    table = Retained(most=5, most_bytes=100)
    table.keep(A, retained("x/y"))
    assert [qos for _, qos in table.matching([("x/y", 0), ("x/+", 1), ("x/#", 0)])] == [1]


def test_limits_for_each_publisher() -> None:
    table = Retained(most=2, most_bytes=10)
    assert table.keep(A, retained("1", b"12345"))
    assert table.keep(A, retained("2", b"12345"))
    assert not table.keep(A, retained("3", b"1"))
    assert table.keep(A, retained("2", b"1234")), "in place of an older one"
    assert table.keep(B, retained("3", b"1234567890"))
    assert not table.keep(B, retained("4", b"1"))
    assert table.keep(A, retained("2", b"")), "clearing gives room"
    assert not table.keep(A, retained("5", b"123456"))
    assert table.keep(A, retained("5", b"12345"))
    assert sorted(table) == ["1", "3", "5"]


def test_what_cannot_be_retained_does_not_leave_an_older_one_in_its_place() -> None:
    table = Retained(most=2, most_bytes=10)
    table.keep(A, retained("x", b"old"))
    assert not table.keep(A, retained("x", bytes(11)))
    assert not table


def test_forget_a_publisher() -> None:
    table = Retained(most=5, most_bytes=100)
    for topic, who in (("1", A), ("2", A), ("3", B)):
        table.keep(who, retained(topic))
    table.keep(B, retained("2", b"taken over"))
    table.forget("a")
    table.forget("a")
    assert sorted(table) == ["2", "3"]
    table.clear()
    assert list(table.matching([("#", 0)])) == []
    assert table.keep(None, retained("x")), "the broker itself may retain"


def test_it_is_still_amqtts_table() -> None:
    table = Retained(most=5, most_bytes=100)
    table["x"] = RetainedApplicationMessage(A, "x", b"1", 1)
    assert [message.topic for message, _ in table.matching([("+", 1)])] == ["x"]
    del table["x"]
    assert list(table.matching([("+", 1)])) == []
