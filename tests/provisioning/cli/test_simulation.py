import pytest
from aiomqtt import Message

from provisioning.cli.simulation import HOPELESS, Report, WrongAnswerError, _pushed
from provisioning.model.identity import Identity
from provisioning.protocols.enos import wire

DEVICE = Identity("enos", "pk", "dk")
TOPIC = wire.activation_topic(DEVICE)
PUSH = wire.write_activation(DEVICE, "asset", "secret")


def message(payload: bytes, topic: str = TOPIC) -> Message:
    return Message(topic, payload, 1, False, 1, None)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, {}),
        (1, {"p50": 1.0, "p95": 1.0, "p99": 1.0, "max": 1.0}),
        (100, {"p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}),
        (1_000, {"p50": 500.0, "p95": 950.0, "p99": 990.0, "max": 1000.0}),
    ],
)
def test_latencies_by_nearest_rank(count: int, expected: dict[str, float]) -> None:
    report = Report()
    report.steps["post"] = [n / 1000 for n in range(count, 0, -1)]
    assert report.latencies("post") == expected


def test_one_right_answer_is_hope() -> None:
    assert Report(wrong=HOPELESS).is_hopeless
    assert not Report(wrong=HOPELESS, right=1).is_hopeless


def test_what_did_not_come_through_is_not_timed() -> None:
    report = Report()
    with pytest.raises(WrongAnswerError), report.timed("login"):
        raise WrongAnswerError
    assert report.steps["login"] == []


def test_the_pushed_secret() -> None:
    assert _pushed(message(PUSH), TOPIC, DEVICE) == "secret"


@pytest.mark.parametrize(
    ("push", "words"),
    [
        (message(b""), "not of the form"),
        (message(PUSH, "/elsewhere"), "came before the secret"),
        (message(PUSH.replace(b":", b": ")), "not of the form"),
        (message(PUSH.replace(b'"id":"1"', b'"id":1')), "not of the form"),
        (message(PUSH.replace(b'"dk"', b'"dk2"')), "another device"),
    ],
    ids=["empty", "elsewhere", "blanks", "numeric id", "another's"],
)
def test_a_push_that_real_clients_could_not_read(push: Message, words: str) -> None:
    with pytest.raises((WrongAnswerError, ValueError)) as wrong:
        _pushed(push, TOPIC, DEVICE)
    if isinstance(wrong.value, WrongAnswerError):
        assert words in str(wrong.value)
