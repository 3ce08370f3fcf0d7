"""provisioning/protocols/ublox/info_wire.py"""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from provisioning.core import pki
from provisioning.model.module import Module
from provisioning.model.refusal import Refusal
from provisioning.model.root import Standing
from provisioning.protocols.ublox import info_wire, refusals
from provisioning.store.lists import Page
from provisioning.store.notices import CloneEvent, Span, Suspicion
from provisioning.store.overview import Installed
from provisioning.store.usage import Days

NOW = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
DAY = timedelta(days=1)
SOON = datetime(2026, 3, 1, 12, 1, 1, tzinfo=UTC)
"""Where a span ends that ends now: clocks may differ."""
UID = "0002000089280087"
MODULE = Module(id=1, account_id=1, account="key", uid=UID, activated=False, disabled=False)
CERTIFICATE = Installed(
    authority="example.com", serial="73068c91", not_before=NOW, not_after=NOW + DAY, der=b"der",
    standing=Standing.VALID,
)  # fmt: skip


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (NOW - DAY, None, Span(NOW - DAY, SOON)),
        (NOW - DAY, NOW - DAY, Span(NOW - DAY, datetime(2026, 2, 28, 12, 0, 1, tzinfo=UTC))),
        (NOW - 180 * DAY, datetime.max.replace(tzinfo=UTC), Span(NOW - 180 * DAY, SOON)),
        (NOW + timedelta(seconds=60), None, Span(NOW + timedelta(seconds=60), SOON)),
        (NOW - 181 * DAY, None, "FromDate"),
        (datetime.min.replace(tzinfo=UTC), None, "FromDate"),
        (NOW + timedelta(seconds=61), None, "FromDate"),
        (NOW - DAY, NOW - DAY - timedelta(microseconds=1), "ToDate"),
    ],
    ids=["to now", "one second", "to the end of time", "clocks differ", "too old", "year 1", "to come", "before"],
)  # fmt: skip
def test_spans(start: datetime, end: datetime | None, expected: Span | str) -> None:
    if isinstance(expected, Span):
        assert info_wire.read_span(start, end, NOW, info_wire.OLDEST_NOTIFICATION) == expected
    else:
        with pytest.raises(Refusal) as caught:
            info_wire.read_span(start, end, NOW, info_wire.OLDEST_NOTIFICATION)
        assert refusals.write_error(caught.value).message == f"Bad Request. Invalid {expected}"


def test_a_span_may_begin_at_any_time_where_nothing_is_too_old() -> None:
    assert info_wire.read_span(datetime.min.replace(tzinfo=UTC), NOW, NOW).start.year == 1


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ("2026-03-01", None, ("2026-03-01", "2026-03-01")),
        ("2025-12-31", "2026-01-01", ("2025-12-31", "2026-01-01")),
        ("2026-02-01", "9999-12-31", ("2026-02-01", "2026-03-01")),
        ("2025-12-30", None, "FromDate"),
        ("2026-03-02", None, "FromDate"),
        ("0001-01-01", None, "FromDate"),
        ("2026-03-01", "2026-02-28", "ToDate"),
    ],
)
def test_days(first: str, last: str | None, expected: tuple[str, str] | str) -> None:
    given = date.fromisoformat(first), None if last is None else date.fromisoformat(last)
    if isinstance(expected, tuple):
        assert info_wire.read_days(*given, NOW) == Days(*map(date.fromisoformat, expected))
    else:
        with pytest.raises(Refusal) as caught:
            info_wire.read_days(*given, NOW)
        assert refusals.write_error(caught.value).message == f"Bad Request. Invalid {expected}"


@pytest.mark.parametrize(
    ("bootstrapped_at", "activated", "state"),
    [(None, False, "UNKNOWN"), (NOW, False, "ALLOCATED"), (NOW, True, "ACTIVATED")],
)
def test_the_state_of_a_device(bootstrapped_at: datetime | None, activated: bool, state: str) -> None:
    module = replace(MODULE, bootstrapped_at=bootstrapped_at, activated=activated, blacklisted=not activated)
    rot = info_wire.write_rot(module)
    assert (rot["State"], rot["IsBlacklisted"]) == (state, not activated)


def test_a_device_that_nothing_is_known_of_has_all_fields() -> None:
    assert info_wire.write_info(MODULE, None, info_wire.OPTIONS) == {
        "ROTPublicUID": UID,
        "ROT": {
            "RotVersion": None, "SerialNumber": None, "Version": None, "DeviceSerialNumber": None, "IMEI": None,
            "DeviceProfileUID": "UNATTRIBUTED DEVICE PROFILE", "TypeNumber": None, "IsBlacklisted": False,
            "State": "UNKNOWN", "BootstrapDate": None, "SealedDate": None, "LastSeen": None,
        },
        "Provisioning": {"DesiredProperties": {}, "CurrentProperties": {}},
        "ZTP": {},
    }  # fmt: skip


@pytest.mark.parametrize("options", [["CORE"], ["ZTP", "PROVISIONING"], ["ZTP", "ZTP"]])
def test_options_choose_the_parts(options: list[str]) -> None:
    parts = {"CORE": "ROT", "PROVISIONING": "Provisioning", "ZTP": "ZTP"}
    assert set(info_wire.write_info(MODULE, None, options)) == {"ROTPublicUID", *(parts[each] for each in options)}


@pytest.mark.parametrize("standing", Standing)
def test_a_certificate(standing: Standing) -> None:
    assert info_wire.write_ztp(replace(CERTIFICATE, standing=standing)) == {
        "CertificateAuthorityName": "example.com", "CertificateSerialNumber": "73068c91",
        "Status": standing.name, "IssueDate": "2026-03-01T12:00:00Z", "ExpirationDate": "2026-03-02T12:00:00Z",
        "Certificate": pki.write_pem(b"der"),
    }  # fmt: skip


def test_clone_events_and_suspicions() -> None:
    clones = info_wire.write_clone_events(Page([CloneEvent(UID, NOW, "COUNTER_REGRESSION", "192.0.2.7", None)], 2, 101))
    assert clones == {
        "ClonedEvents": [
            {
                "ROTPublicUID": UID, "EventDate": "2026-03-01T12:00:00Z", "Reason": "COUNTER_REGRESSION",
                "SourceIP": "192.0.2.7", "IMEI": None,
            }
        ],
        "PageNumber": 2, "PageSize": 100, "TotalRecords": 101,
    }  # fmt: skip
    suspicious: Any = info_wire.write_suspicions(Page([Suspicion(UID, ["R"], NOW, ["0002000089280088"])], 1, 1))
    assert suspicious["SuspiciousDevices"] == [
        {
            "ROTPublicUID": UID, "Reasons": ["R"], "DetectedDate": "2026-03-01T12:00:00Z",
            "RelatedROTPublicUIDs": ["0002000089280088"],
        }
    ]  # fmt: skip


def test_usage_has_all_counters_under_short_uids() -> None:
    assert info_wire.write_usage({UID: {"SymmetricKey": 3, "ZTPV1": 1}, "000200008928c093": {}}) == {
        "2000089280087": {
            "SymmetricKey": 3, "ProtectionParameters": 0, "LocalDPR": 0, "LocalC2C": 0, "LocalC2CKeyPairing": 0,
            "ZTPV1": 1, "CertificateRenewals": 0, "CertificateUpdates": 0,
        },
        "000200008928c093": dict.fromkeys(info_wire.USED, 0),
    }  # fmt: skip
