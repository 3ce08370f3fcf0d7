from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.core.links import LIFETIME, check_link, sign_link
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.update import Offer
from provisioning.store.sealing import Sealer

KEY = Sealer(bytes(32)).derive("download links")
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
CHECKSUM = "41bb20919c5d1d1eb2299079216a300c0fcbf4c5e2ebf0e418ea15919f07fe7f"
OFFER = Offer(checksum=CHECKSUM, version="1.4.0", update_id="upd1", file="fw-1.4.0.bin", size=14)


def parts(link: str) -> dict[str, str]:
    url = urlsplit(link)
    *_, checksum, file = url.path.split("/")
    return {"checksum": checksum, "file": file} | {name: value for name, (value,) in parse_qs(url.query).items()}


def refused(now: datetime = NOW, key: bytes = KEY, **changed: str) -> Reason | None:
    try:
        check_link(key, now=now, **parts(sign_link("https://h", KEY, OFFER, NOW)) | changed)
    except Refusal as refusal:
        return refusal.reason
    return None


def test_a_link_says_what_it_leads_to_and_until_when() -> None:
    link = sign_link("https://iot.example.org/prefix/", KEY, OFFER, NOW)
    assert link.startswith(
        f"https://iot.example.org/prefix/updates/{CHECKSUM}/fw-1.4.0.bin?expires=1795262400&signature="
    )
    assert len(link) < 260
    assert refused() is None


def test_a_link_is_good_for_a_day() -> None:
    assert refused(NOW + LIFETIME - timedelta(seconds=1)) is None
    assert refused(NOW + LIFETIME) is Reason.STALE
    assert timedelta(hours=24) == LIFETIME


@pytest.mark.parametrize(
    "changed",
    [
        {"checksum": "0" * 64}, {"file": "fw-1.4.1.bin"}, {"expires": "1795262401"}, {"expires": "01795262400"},
        {"expires": ""}, {"expires": "x"}, {"expires": "\u0661"}, {"signature": ""}, {"signature": "A" * 43},
        {"signature": "\udcff"}, {"expires": "\udcff"}, {"expires": "9" * 5_000},
    ],
)  # fmt: skip
def test_a_link_that_was_changed_is_refused(changed: dict[str, Any]) -> None:
    assert refused(**changed) is Reason.NOT_PROVEN


def test_another_key_signs_other_links() -> None:
    assert refused(key=Sealer(bytes(32)).derive("something else")) is Reason.NOT_PROVEN
    assert refused(key=Sealer(bytes([1] * 32)).derive("download links")) is Reason.NOT_PROVEN


@given(st.text(), st.text())
def test_nothing_else_opens_it(expires: str, signature: str) -> None:
    assert refused(expires=expires, signature=signature) is Reason.NOT_PROVEN
