import json

import pytest

from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.tencent import answers
from provisioning.protocols.tencent.payload import Payload

# The reference, section 5: code, name, words, HTTP status where errors have their own.
TABLE = {
    Reason.NOT_PROVEN: (1010, "AuthFailure.SignatureFailure", "Check signature failed", 401),
    Reason.STALE: (1011, "AuthFailure.SignatureExpire", "Signature expired", 401),
    Reason.MISSING: (1001, "MissingParameter", "X-TC-Nonce is missing", 400),
    Reason.MALFORMED: (1002, "InvalidParameterValue", "X-TC-Nonce is invalid", 400),
    Reason.UNKNOWN: (1003, "NoSuchProduct", "Product does not exist", 404),
    Reason.ACTIVATION_OFF: (
        1004, "FailedOperation.DynamicRegisterDisabled", "Dynamic registration is not enabled", 403,
    ),
    Reason.DEVICE_UNKNOWN: (1005, "ResourceNotFound.DeviceNotExist", "Device does not exist", 404),
    Reason.LIMIT_REACHED: (1006, "LimitExceeded", "Registration limit reached", 403),
    Reason.ACTIVATION_SPENT: (1007, "ResourceInUse.DeviceActivated", "Device already activated", 409),
    Reason.DISABLED: (1008, "UnsupportedOperation.DeviceDisabled", "Device is disabled", 403),
    Reason.RATE_LIMITED: (1009, "RequestLimitExceeded", "Too many requests", 429),
    Reason.INTERNAL: (1500, "InternalError", "Internal error", 500),
}  # fmt: skip


def test_there_is_a_row_for_every_reason() -> None:
    assert set(answers.REFUSALS) == set(Reason)


@pytest.mark.parametrize("reason", TABLE)
def test_errors_are_those_of_the_table(reason: Reason) -> None:
    code, name, words, rest = TABLE[reason]
    refusal = Refusal(reason, field="X-TC-Nonce")
    status, body = answers.write_error(refusal, "id")
    assert status == rest
    assert body == {
        "code": code, "message": words,
        "Response": {"Len": 0, "Error": {"Code": name, "Message": words}, "RequestId": "id"},
    }  # fmt: skip
    assert answers.write_legacy_error(refusal) == (rest, {"code": code, "message": words, "len": 0})


def test_the_example_of_the_reference() -> None:
    _, body = answers.write_error(Refusal(Reason.NOT_PROVEN), "f4da4f1f-0000-4000-8000-349fc0072ba0")
    assert answers.compact(body) == (
        '{"code":1010,"message":"Check signature failed","Response":{"Len":0,"Error":'
        '{"Code":"AuthFailure.SignatureFailure","Message":"Check signature failed"},'
        '"RequestId":"f4da4f1f-0000-4000-8000-349fc0072ba0"}}'
    )


@pytest.mark.parametrize("reason", Reason)
def test_no_error_can_be_taken_for_a_success(reason: Reason) -> None:
    """Clients tell success by a payload, or by a length above 0."""
    for _, body in (answers.write_error(Refusal(reason), "id"), answers.write_legacy_error(Refusal(reason))):
        text = json.dumps(body)
        assert "ayload" not in text
        assert '"Len": 0' in text or '"len": 0' in text
        assert body["code"] != 0


@pytest.mark.parametrize("reason", Reason)
def test_old_firmware_has_room_for_every_error(reason: Reason) -> None:
    _, body = answers.write_legacy_error(Refusal(reason, field="productSecret"))
    assert len(answers.compact(body)) <= answers.LARGEST_LEGACY_ANSWER


def test_answers() -> None:
    made = Payload("AAAA", 3)
    assert answers.compact(answers.write_answer(made, "id")) == (
        '{"Response":{"Len":3,"Payload":"AAAA","RequestId":"id"}}'
    )
    assert answers.compact(answers.write_legacy_answer(made)) == '{"code":0,"message":"","len":3,"payload":"AAAA"}'


def test_a_long_psk_fits_into_the_answer_for_old_firmware() -> None:
    longest = Payload("A" * 128, 93)  # of a psk of 64 characters
    assert len(answers.compact(answers.write_legacy_answer(longest))) <= answers.LARGEST_LEGACY_ANSWER
