"""provisioning/model/certificate.py"""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from provisioning.model.certificate import TABLE, Authority, CertificateEvent, Revocation, Status, Step, after
from provisioning.model.events import Event
from provisioning.model.refusal import Reason, Refusal

NOW = datetime(2026, 3, 1, tzinfo=UTC)
AUTHORITY = Authority(
    name="a", generation=2, certificate=b"", key_type="p256", has_key=True, serial="1", subject="CN=a",
    not_before=NOW, not_after=NOW + timedelta(days=1),
)  # fmt: skip


@pytest.mark.parametrize(("status", "step"), list(itertools.product(Status, Step)))
def test_a_step_is_in_the_table_or_refused(status: Status, step: Step) -> None:
    if (status, step) in TABLE:
        assert after(status, step) is TABLE[status, step]
    else:
        with pytest.raises(Refusal) as caught:
            after(status, step)
        assert (caught.value.reason, caught.value.detail) == (
            Reason.ILLEGAL_TRANSITION, {"state": str(status), "step": str(step)},
        )  # fmt: skip


def test_nothing_leads_out_of_revoked() -> None:
    assert not [row for row in TABLE if row[0] is Status.REVOKED]


def test_reasons_are_those_of_the_rfc() -> None:
    """RFC 5280, 5.3.1, without those that are no reason to revoke."""
    known = {flag.value for flag in x509.ReasonFlags}
    assert known - {str(each) for each in Revocation} == {"certificateHold", "removeFromCRL", "aACompromise"}


@pytest.mark.parametrize(
    ("authority", "now", "state"),
    [
        (replace(AUTHORITY, has_key=False), NOW, "without a key"),
        (replace(AUTHORITY, retired_at=NOW), NOW, "retired"),
        (replace(AUTHORITY, distrusted_at=NOW), NOW, "distrusted"),
        (AUTHORITY, NOW + timedelta(days=1), "expired"),
        (AUTHORITY, NOW - timedelta(seconds=1), "not yet valid"),
    ],
)
def test_who_may_not_issue(authority: Authority, now: datetime, state: str) -> None:
    AUTHORITY.check_may_issue(NOW)
    with pytest.raises(Refusal) as caught:
        authority.check_may_issue(now)
    assert caught.value.reason is Reason.ILLEGAL_TRANSITION
    assert caught.value.detail == {"authority": "a/2", "state": state, "step": "issue"}


def subclasses(of: type[Event]) -> list[type[Event]]:
    return [each for direct in of.__subclasses__() for each in (direct, *subclasses(direct))]


def test_every_event_has_a_kind_of_its_own() -> None:
    kinds = [each.kind for each in subclasses(Event) if each is not CertificateEvent]
    assert len(set(kinds)) == len(kinds)
    assert {"certificate.expiring", "authority.rotated", "device.registered"} <= set(kinds)
