import pytest
from aiomqtt import Message

from provisioning.cli.simulation import WrongAnswerError
from provisioning.cli.simulation_enos import _pushed
from provisioning.model.identity import Identity
from provisioning.protocols.enos import mqtt_wire

DEVICE = Identity("enos", "pk", "dk")
TOPIC = mqtt_wire.activation_topic(DEVICE)
PUSH = mqtt_wire.write_activation(DEVICE, "asset", "secret")


def message(payload: bytes, topic: str = TOPIC) -> Message:
    return Message(topic, payload, 1, False, 1, None)


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
