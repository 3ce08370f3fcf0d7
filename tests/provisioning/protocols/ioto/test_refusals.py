"""Every reason has words of the vendor's list; the two that cost certificates stand where they must alone."""

import pytest

from provisioning.model.claim import TokenEnd
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.ioto import refusals


def test_every_reason_has_a_row_of_the_vendors_statuses() -> None:
    assert set(refusals.REFUSALS) == set(Reason)
    assert {row.status for row in refusals.REFUSALS.values()} == {400, 403, 500}


@pytest.mark.parametrize("reason", list(Reason))
def test_reserved_texts_stand_on_checkin_alone_and_for_what_is_certain(reason: Reason) -> None:
    reserved = {refusals.CANNOT_FIND_DEVICE.text, refusals.AUTHENTICATION_FAILED.text}
    for known in ("", "unheard of", *TokenEnd):
        refusal = Refusal(reason, known=known)
        for write in (refusals.write_error, refusals.write_register_error, refusals.write_credentials_error):
            assert write(refusal).text not in reserved
        certain = (reason is Reason.NOT_PROVEN and known in set(TokenEnd)) or reason is Reason.NOT_ALLOCATED
        assert (refusals.write_checkin_error(refusal).text in reserved) is certain


@pytest.mark.parametrize(
    ("end", "status", "text"),
    [
        (TokenEnd.DELETED, 400, "Cannot find device"),
        (TokenEnd.RELEASED, 403, "Authentication failed"),
        (TokenEnd.REPLACED, 403, "Authentication failed"),
        ("", 403, "Access denied"),
    ],
)
def test_what_a_token_that_is_no_longer_good_says(end: str, status: int, text: str) -> None:
    assert refusals.write_checkin_error(Refusal(Reason.NOT_PROVEN, known=end)) == refusals.Row(status, text)


@pytest.mark.parametrize(
    ("refusal", "status", "text"),
    [
        (Refusal(Reason.UNKNOWN, device="D"), 400, "Unknown device"),
        (Refusal(Reason.UNKNOWN, update="upd1"), 400, "Unknown update"),
        (Refusal(Reason.UNKNOWN, product="P"), 400, "Unknown product"),
        (Refusal(Reason.UNKNOWN, authority="default"), 500, "Internal error"),
        (Refusal(Reason.ILLEGAL_TRANSITION, authority="a/1", state="retired", step="issue"), 500, "Internal error"),
        (Refusal(Reason.ILLEGAL_TRANSITION, state="not claimed", step="release"), 400, "Device is not claimed"),
        (Refusal(Reason.NOT_PROVEN, known="released"), 400, "Device not claimed"),
        (Refusal(Reason.MALFORMED, field="body"), 400, "Invalid request"),
        (Refusal(Reason.UNAVAILABLE, error="database gone"), 500, "Internal error"),
        (Refusal(Reason.UNAVAILABLE, aws="STS is away"), 500, "Internal error"),
    ],
)
def test_words(refusal: Refusal, status: int, text: str) -> None:
    assert refusals.write_error(refusal) == refusals.Row(status, text)
