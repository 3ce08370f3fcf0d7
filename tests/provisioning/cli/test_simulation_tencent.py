import base64
from typing import Any

import pytest

from provisioning.cli.simulation import WrongAnswerError
from provisioning.cli.simulation_tencent import Policy, check_again, read_psk, said
from provisioning.protocols.tencent import answers, payload

SECRET = "hzvf5LF9S0isvBhDSauWMaIk"
PSK = base64.b64encode(bytes(16)).decode()


def answer(plaintext: bytes = payload.write_psk(PSK), secret: str = SECRET) -> Any:
    return answers.write_answer(payload.encrypt(plaintext, secret), "id")


def test_the_key_in_an_answer() -> None:
    assert read_psk(answer(), SECRET) == PSK


def changed(**more: object) -> Any:
    one = answer()
    return one | {"Response": one["Response"] | more}


@pytest.mark.parametrize(
    "wrong",
    [
        answer(secret="x" * 24),
        answer(b'{"psk":"' + PSK.encode() + b'","encryptionType":2}'),
        answer(payload.write_psk("c2hvcnQ=")),
        answer(payload.write_psk("no Base64")),
        answer(payload.write_certificate("pem", "key")),
        answer(b"[]"),
        changed(Len=52),
        changed(Payload="no Base64"),
        changed(Payload=7),
        changed(More=1),
        {},
        {"Response": None},
    ],
)
def test_an_answer_that_real_clients_could_not_read(wrong: Any) -> None:
    with pytest.raises((WrongAnswerError, ValueError, KeyError, TypeError)):
        read_psk(wrong, SECRET)


def test_a_refusal_is_told_by_its_code() -> None:
    refusal = {"code": 1009, "message": "Too many requests", "Response": {"Len": 0}}
    with pytest.raises(WrongAnswerError, match=r"^1009 Too many requests$"):
        read_psk(refusal, SECRET)
    assert said(answer()) == "a success"


DENIAL = {"code": 1007, "message": "Device already activated", "Response": {"Len": 0}}
OTHER = answer(payload.write_psk(base64.b64encode(bytes(range(16))).decode()))


@pytest.mark.parametrize(("policy", "right"), [("deny", DENIAL), ("same", answer()), ("rotate", OTHER)])
def test_what_the_policy_says_and_nothing_else(policy: Policy, right: Any) -> None:
    with_payload = DENIAL | {"Response": answer()["Response"]}
    for one in (DENIAL, answer(), OTHER, with_payload, DENIAL | {"code": 1009}):
        if one == right:
            check_again(one, policy, product_secret=SECRET, psk=PSK)
        else:
            with pytest.raises(WrongAnswerError):
                check_again(one, policy, product_secret=SECRET, psk=PSK)
