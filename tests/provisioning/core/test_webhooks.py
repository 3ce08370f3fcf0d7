"""provisioning/core/webhooks.py"""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from provisioning.core import webhooks
from provisioning.core.webhooks import host_of, is_allowed, is_public, next_attempt, sign
from provisioning.model.refusal import Reason, Refusal
from provisioning.store import webhooks as store
from provisioning.store.database import Database
from tests.ublox import OTHER_KEY, make_account

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "9.255.255.255", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1", "192.167.0.1",
     "192.0.1.1", "198.17.0.1", "198.20.0.1", "223.255.255.255", "2606:4700::1111", "2a00::1", "2003::1",
     "2001:200::1"],
)  # fmt: skip
def test_addresses_of_the_internet(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.0.1", "169.254.169.254",
     "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1",
     "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
     "::", "::1", "::ffff:8.8.8.8", "::ffff:127.0.0.1", "::8.8.8.8", "64:ff9b::808:808", "64:ff9b:1::1", "100::1",
     "2001::1", "2001:10::1", "2001:20::1", "2001:db8::1", "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1",
     "fdff::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "localhost", "", "1.2.3", "8.8.8.8.8"],
)  # fmt: skip
def test_addresses_that_are_nobodys_or_ours(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://example.com", "example.com"),
        ("HTTPS://Example.COM:8443/a/b?c=d&e=%20#"[:-1], "Example.COM"),
        ("https://example.com./x", "example.com"),
        ("https://a_b.xn--bcher-kva.example/?x", "a_b.xn--bcher-kva.example"),
        ("https://1.2.3.4:65535/", "1.2.3.4"),
        ("https://[2606:4700::1111]:443/x", "2606:4700::1111"),
        ("https://1.example/", "1.example"),
        ("https://example.com/" + "x" * 2_028, "example.com"),
        ("https://example.com/@:user!$&'()*+,;=~[]", "example.com"),
    ],
)
def test_urls_and_their_hosts(url: str, host: str) -> None:
    assert host_of(url) == host
    assert (URL(url, encoded=True).raw_host or "").removesuffix(".").lower() == host.lower()  # as it is sent


@pytest.mark.parametrize(
    "url",
    ["", "example.com", "//example.com/", "/x", "http://example.com/", "https:/example.com", "https:///x", "https://",
     "ftp://example.com/", "https://user@example.com/", "https://user:pass@example.com/", "https://example.com:0/",
     "https://example.com:65536/", "https://example.com:x/", "https://example.com:/", "https://example.com/#x",
     "https://example.com/a b", "https://example.com/\r\nX: y", "https://example.com/\n", "https://example.com/x\n",
     "https://exam\u200bple.com/", "https://b\u00fccher.example/", "https://example.com/\u00e9", "https://a..b/",
     "https://.example/", "https://example.com\\@evil/", "https://example.com/\\", "https://[::1", "https://::1/",
     "https://[::1%25eth0]/", "https://[1.2.3.4]/", "https://[:::]/", "https://1.2.3/", "https://127.1/",
     "https://256.1.1.1/", "https://2130706433/", "https://0x7f.1/", "https://0x7f000001/", "https://0177.0.0.1/",
     "https://1.2.3.4.5/", " https://example.com/", "https://example.com /", "https://%31.2.3.4/",
     "https://" + "a" * 64 + ".example/", "https://" + "a." * 127 + "example/", "https://example.com/" + "x" * 2_029],
)  # fmt: skip
def test_what_is_no_url_for_a_webhook(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        host_of(url)
    assert not is_allowed(url, private=True)


@given(st.one_of(st.text(), st.from_regex(webhooks.URL)))
def test_anything_is_a_url_or_is_refused(text: str) -> None:
    try:
        host = host_of(text)
    except ValueError:
        return
    assert (URL(text, encoded=True).raw_host or "").removesuffix(".").lower() == host.lower()


@pytest.mark.parametrize(
    ("host", "public"),
    [("example.com", True), ("8.8.8.8", True), ("[2606:4700::1111]", True), ("127.0.0.1", False), ("127.0.0.1.", False),
     ("10.1.2.3", False), ("169.254.169.254", False), ("[::1]", False), ("[::ffff:8.8.8.8]", False),
     ("[fd00::1]", False), ("localhost", False), ("LocalHost", False), ("localhost.", False), ("a.localhost", False),
     ("localhost.example", True)],
)  # fmt: skip
def test_hosts_that_are_not_public_need_leave(host: str, public: bool) -> None:
    assert is_allowed(f"https://{host}:8443/x", private=False) is public
    assert is_allowed(f"https://{host}/x", private=True)


def test_signature() -> None:
    """RFC 4231, 4.3: its key is text."""
    digest = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert sign(b"what do ya want for nothing?", "Jefe") == f"sha256={digest}"


def test_retries() -> None:
    """Contract, section 6: after 1 min, 5 min, 30 min, 2 h, 12 h, then dead letter."""
    due = [next_attempt(over, NOW) for over in range(1, 8)]
    waits = [at and (at - NOW) // timedelta(minutes=1) for at in due]
    assert waits == [1, 5, 30, 120, 720, None, None]


@pytest.mark.server
async def test_an_account_has_so_many_webhooks_and_no_more(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "MOST", 2)
    one, other = await make_account(database), await make_account(database, OTHER_KEY)
    for account, url, kind in ((one, "https://a/", "K"), (one, "https://a/", "L"), (other, "https://a/", "K")):
        async with database.begin() as tx:
            await webhooks.create(tx, account.id, url, kind, "t", now=NOW)
    with pytest.raises(Refusal) as caught:
        async with database.begin() as tx:
            await webhooks.create(tx, one.id, "https://b/", "K", "t", now=NOW)
    assert caught.value.reason is Reason.LIMIT_REACHED
    with pytest.raises(Refusal) as caught:
        async with database.begin() as tx:
            await webhooks.update(tx, one.id, "https://b/", "t")
    assert caught.value.reason is Reason.UNKNOWN
    with pytest.raises(Refusal) as caught:
        async with database.begin() as tx:
            await webhooks.delete(tx, one.id, "https://b/")
    assert caught.value.reason is Reason.UNKNOWN
    async with database.begin() as tx:
        await webhooks.delete(tx, one.id, "https://a/")
        assert await store.of_account(tx, one.id) == []
        assert [each.url for each in await store.of_account(tx, other.id)] == ["https://a/"], "another account's"
