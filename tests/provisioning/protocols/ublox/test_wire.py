"""Uids, times, pages and properties as all operations have them. Contract: sections 1.1 and 5."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.protocols.ublox import wire

AT = datetime(2020, 4, 20, 19, 0, 36, 999_999, UTC)
TEXT = "2020-04-20T19:00:36Z"


@pytest.mark.parametrize(
    ("stated", "uid"),
    [
        ("0002000089280087", "0002000089280087"), ("2000089280087", "0002000089280087"),
        (2000089280087, "0002000089280087"), ("0002000100003FFF", "0002000100003fff"), ("0", "0" * 16),
        (0, "0" * 16), (9_999_999_999_999_999, "9" * 16), ("f" * 16, "f" * 16),
    ],
)  # fmt: skip
def test_uids_are_read(stated: object, uid: str) -> None:
    assert wire.read_uid(stated) == uid


@pytest.mark.parametrize(
    "stated",
    ["", " ", "0" * 17, "g", "0x12", "-1", "1 ", " 1", "1\n", "٣", "1.0", -1, 10**16, 1.0, True, None, [], {}, b"1"],
)
def test_what_is_no_uid_is_refused(stated: object) -> None:
    with pytest.raises(ValueError, match="16 hexadecimal digits"):
        wire.read_uid(stated)


@given(st.integers(0, 2**64 - 1))
def test_every_uid_survives_its_way(number: int) -> None:
    uid = f"{number:016x}"
    assert wire.read_uid(uid) == wire.read_uid(uid.upper().lstrip("0") or "0") == uid
    for written in (wire.write_uid_as_number(uid), wire.write_uid_as_key(uid)):
        assert wire.read_uid(written) == uid


@pytest.mark.parametrize(
    ("uid", "number", "key"),
    [
        ("0002000089282245", 2000089282245, "2000089282245"),
        ("0002000005b52001", "0002000005b52001", "0002000005b52001"),
        ("0" * 16, 0, "0"),
    ],
)  # fmt: skip
def test_uids_are_written(uid: str, number: object, key: str) -> None:
    assert wire.write_uid_as_number(uid) == number
    assert wire.write_uid_as_key(uid) == key


def test_times_are_written_in_utc() -> None:
    assert wire.write_time(AT) == TEXT
    assert wire.write_time(AT.astimezone(timezone(timedelta(hours=8)))) == TEXT


def test_pages_and_replies_that_return_nothing() -> None:
    assert wire.write_paging(3, 201) == {"PageNumber": 3, "PageSize": 100, "TotalRecords": 201}
    assert wire.write_nothing(None) == {"message": "Request Successful"}
    assert wire.write_nothing_marked(None) == {"Message": "Request Successful"}


def test_tags_are_compared_whatever_their_case() -> None:
    assert wire.fold("DownTown") == wire.fold("downtown")
    assert wire.fold("STRASSE") == wire.fold("straße")
    assert wire.fold("down town") != wire.fold("downtown")


@pytest.mark.parametrize(
    ("properties", "desired"),
    [
        ({}, {}),
        (
            {"ZTPV1": ("ENABLED", AT), "LocalDPR": ("DISABLED", AT)},
            {
                "Authorizations": [
                    {"Name": "LocalDPR", "State": "DISABLED", "ModifiedDate": TEXT},
                    {"Name": "ZTPV1", "State": "ENABLED", "ModifiedDate": TEXT},
                ]
            },
        ),
        (
            {"SecurityHeartbeatInSec": (86_400, AT)},
            {"NetworkParameters": [{"Name": "SecurityHeartbeatInSec", "Value": 86_400, "ModifiedDate": TEXT}]},
        ),
        ({"CAName": ("example.com", AT)}, {"Zerotouch": {"CAName": "example.com", "ModifiedDate": TEXT}}),
    ],
)
def test_properties(properties: Any, desired: dict[str, Any]) -> None:
    assert wire.write_desired(properties) == desired
    current = str(wire.write_current(properties))
    assert current == str(desired).replace("ModifiedDate", "SyncDate")
