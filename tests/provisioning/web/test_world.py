"""The addresses that devices are told."""

from typing import Any
from unittest.mock import Mock

import pytest
from aiohttp.test_utils import make_mocked_request

from provisioning.web.world import Endpoints, PkiPolicy, asked_host


def host_of(header: str | None, ours: Any = ("192.0.2.7", 8080)) -> str:
    transport = Mock()
    transport.get_extra_info = {"sockname": ours}.get
    headers = {} if header is None else {"Host": header}
    return asked_host(make_mocked_request("POST", "/", headers=headers, transport=transport))


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("gate.example.org", "gate.example.org"),
        ("gate.example.org:8080", "gate.example.org"),
        ("gate.example.org.", "gate.example.org."),
        ("my_service:80", "my_service"),
        ("h", "h"),
        ("192.0.2.1:8080", "192.0.2.1"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("[2001:db8::1]:8080", "[2001:db8::1]"),
        ("[::1]:1", "[::1]"),
        ("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.1]"),
        ("h:", "h"),
    ],
)
def test_host_header(header: str, host: str) -> None:
    assert host_of(header) == host


HOSTILE = [
    "", " ", ":", ":80", "a b", "a/b", "a?b", "a#b", "u@h", "u:p@h:1", "h:80:90", "h:x", "h:123456", "::1", "[", "]",
    "[]", "[::1", "::1]", "[h]", "[::1]x", "a\tb", "ä", "%41", "-h", ".h", "h/", "tcp://h:1", "a" * 300, "h\\", '"',
    "<b>", "[::1%eth0]", "[:::]", "[1.2.3.4]", "[::12345]", "[1::2::3]",
]  # fmt: skip


@pytest.mark.parametrize("header", HOSTILE)
def test_host_header_that_is_none(header: str) -> None:
    """The address stands in by which the device did reach us."""
    assert host_of(header) == "192.0.2.7"


@pytest.mark.parametrize(
    ("ours", "host"),
    [(("::1", 1, 0, 0), "[::1]"), (("fe80::1%eth0", 1, 0, 2), "[fe80::1]"), (None, "127.0.0.1"), ("", "127.0.0.1")],
)
def test_without_host_header(ours: Any, host: str) -> None:
    assert host_of(None, ours) == host


def test_endpoints() -> None:
    told = Endpoints(mqtt_scheme="ssl", mqtt_host="mqtt.example.org", mqtt_port=18883, http_url="https://h.example.org")
    assert told.murl("asked") == "ssl://mqtt.example.org:18883"
    assert told.hurl("asked") == "https://h.example.org"
    asked = Endpoints(mqtt_port=11883, http_port=8080)
    assert asked.murl("[::1]") == "tcp://[::1]:11883"
    assert asked.hurl("gate") == "http://gate:8080"


def test_the_address_of_the_pki_may_be_known_later() -> None:
    port = 0
    policy = PkiPolicy(url=lambda: f"http://h:{port}")
    port = 8080
    assert policy.base == "http://h:8080"
    assert PkiPolicy(url="http://p").base == "http://p"
    assert PkiPolicy().base == ""
    assert "secret" not in repr(PkiPolicy(access_token="secret"))
