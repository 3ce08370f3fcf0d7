"""Every reason has a status and a sentence of the contract's, section 1.2."""

import pytest

from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.ublox import refusals
from provisioning.protocols.ublox.refusals import Row, invalid, unknown_device, write_body, write_error

SENTENCES = {
    400: "Bad Request", 401: "Not Authorized.", 404: "Not Found", 409: "Bad Request. {field} already exists",
    413: "Payload Too Large", 415: "Unsupported Media Type", 429: "Too Many Requests", 500: "Internal Server Error",
}  # fmt: skip


def test_every_reason_has_a_row_and_every_row_a_sentence_of_the_contract() -> None:
    assert set(refusals.REFUSALS) == set(Reason)
    assert {row.status: row.message for row in refusals.REFUSALS.values()} == SENTENCES
    assert all(row.message == SENTENCES[row.status] for row in refusals.REFUSALS.values())


@pytest.mark.parametrize("reason", list(Reason))
def test_details_are_told_where_they_are_meant_to_be(reason: Reason) -> None:
    """What somebody found out about the inner life of the service is nobody's business."""
    detail = {"error": "postgres://of-the-inner-life", "account": "key", "limit": 3, "table": "module"}
    told = write_error(Refusal(reason, field="TagName", **detail))
    assert told.message in {
        SENTENCES[told.status].format(field="TagName"), "Bad Request. Invalid TagName",
    }  # fmt: skip
    assert not [value for value in detail.values() if str(value) in told.message]


@pytest.mark.parametrize(
    ("refusal", "row"),
    [
        (invalid("KeyID"), Row(400, "Bad Request. Invalid KeyID")),
        (unknown_device("ROTPublicUIDs"), Row(400, "Bad Request. Invalid ROTPublicUIDs")),
        (Refusal(Reason.MALFORMED, field="body"), Row(400, "Bad Request")),
        (Refusal(Reason.MALFORMED), Row(400, "Bad Request")),
        (Refusal(Reason.MISSING, field="TagName"), Row(400, "Bad Request")),
        (Refusal(Reason.MISSING), Row(400, "Bad Request")),
        (Refusal(Reason.DUPLICATE, field="CAName"), Row(409, "Bad Request. CAName already exists")),
        (Refusal(Reason.UNKNOWN, tag="downtown"), Row(404, "Not Found")),
        (Refusal(Reason.UNSUPPORTED), Row(401, "Not Authorized.")),
        (Refusal(Reason.NOT_PROVEN, expired=True), Row(401, "Not Authorized.")),
        (Refusal(Reason.RATE_LIMITED), Row(429, "Too Many Requests")),
        (Refusal(Reason.UNAVAILABLE, error="gone"), Row(500, "Internal Server Error")),
        (
            Refusal(Reason.IN_USE, message="Request aborted. This tag is currently assigned to ROTPublicUID(s)"),
            Row(400, "Request aborted. This tag is currently assigned to ROTPublicUID(s)"),
        ),
        (Refusal(Reason.IN_USE, message="of {braces}"), Row(400, "of {braces}")),
    ],
)
def test_sentences(refusal: Refusal, row: Row) -> None:
    assert write_error(refusal) == row


def test_an_unknown_and_a_foreign_device_are_answered_alike() -> None:
    assert write_error(unknown_device("ROTPublicUID")) == write_error(invalid("ROTPublicUID"))


@pytest.mark.parametrize(
    ("status", "key"),
    [(400, "Message"), (404, "Message"), (409, "Message"), (401, "message"), (413, "message"), (415, "message"),
     (429, "message"), (500, "message")],
)  # fmt: skip
def test_the_key_of_the_sentence(status: int, key: str) -> None:
    assert write_body(status, "said", marked=True) == {key: "said"}
    assert write_body(status, "said", marked=False) == {"message": "said"}
