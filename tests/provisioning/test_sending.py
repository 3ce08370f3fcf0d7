"""provisioning/sending.py: one attempt, and whatever a receiver may do."""

import asyncio
import hashlib
import hmac
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from provisioning.sending import ENOUGH, Policy, Sender, Sent, Why, sender
from provisioning.store.webhooks import Delivery
from tests import receivers
from tests.receivers import Receiver, receiver

pytestmark = pytest.mark.server

TOKEN = "Bearer  a\u007e!"


def delivery(url: str, body: str = '{"a": "\u00e9"}', token: str | None = TOKEN) -> Delivery:
    return Delivery(
        lane=1, lease=UUID(int=1), id=1, account_id=1, account="k", receiver=UUID(int=2), url=url, kind="K",
        subject="s", body=body, token=token, attempts=0, created_at=datetime.now(UTC),
    )  # fmt: skip


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Receiver]:
    async with receiver(tmp_path) as found:
        yield found


@pytest.fixture
async def post(there: Receiver) -> AsyncIterator[Sender]:
    async with sender(Policy(timeout=0.3, private=True, ca=there.ca)) as found:
        yield found


async def test_the_body_arrives_as_it_was_stored_with_token_and_signature(there: Receiver, post: Sender) -> None:
    url = there.url("/a%2Fb/?q=%C3%A9&x=[1]")
    assert await post.send(delivery(url)) == Sent(status=200)
    assert await post.send(delivery(there.url("?q"))) == Sent(status=200)
    assert await post.send(delivery(there.url("", host="localhost"), body="")) == Sent(status=200)
    first, second, third = there.posts
    assert (first.path, second.path, third.path) == ("/a%2Fb/?q=%C3%A9&x=[1]", "/?q", "/")
    assert first.body == '{"a": "\u00e9"}'.encode()
    stated = {name.lower(): value for name, value in first.headers.items()}
    digest = hmac.new(TOKEN.encode(), first.body, hashlib.sha256).hexdigest()
    assert stated == {
        "host": f"127.0.0.1:{there.port}", "content-type": "application/json", "content-length": "11",
        "authorization": TOKEN, "x-signature": f"sha256={digest}", "user-agent": "Gatehouse", "accept": "*/*",
    }  # fmt: skip
    assert third.headers["X-Signature"].startswith("sha256=")
    assert len(there.connections) == 2  # one for each host: connections are used again


@pytest.mark.parametrize("status", [200, 201, 204, 299])
async def test_2xx_is_success_whatever_the_body(there: Receiver, post: Sender, status: int) -> None:
    there.behave = receivers.answer(status)
    assert await post.send(delivery(there.url())) == Sent(status=status)


@pytest.mark.parametrize("behave", [receivers.dawdle, receivers.pour])
async def test_a_body_without_end_is_left(there: Receiver, post: Sender, behave: Any) -> None:
    there.behave = behave
    began = time.monotonic()
    assert await post.send(delivery(there.url())) == Sent(status=200)
    assert time.monotonic() - began < 1
    assert ENOUGH < 10_000
    there.behave = receivers.accept
    assert await post.send(delivery(there.url())) == Sent(status=200), "on a connection of its own"


@pytest.mark.parametrize(
    ("behave", "why", "status", "error"),
    [
        (receivers.answer(500), Why.STATUS, 500, "answered 500"),
        (receivers.answer(401), Why.STATUS, 401, "answered 401"),
        (receivers.answer(302, Location="/elsewhere"), Why.REDIRECT, 302, "answered 302"),
        (receivers.answer(307, Location="/elsewhere"), Why.REDIRECT, 307, "answered 307"),
        (receivers.answer(304), Why.REDIRECT, 304, "answered 304"),
        (receivers.stall, Why.TIMEOUT, None, "did not answer in time"),
        (receivers.close, Why.CONNECTION, None, "closed the connection"),
        (receivers.babble, Why.RESPONSE, None, "did not answer in HTTP"),
    ],
)
async def test_anything_else_is_a_failure(
    there: Receiver, post: Sender, behave: Any, *, why: Why, status: int | None, error: str
) -> None:
    there.behave = behave
    sent = await post.send(delivery(there.url()))
    assert (sent.why, sent.status, sent.error) == (why, status, error)
    assert len(there.posts) == 1, "nobody follows or repeats"
    there.behave = receivers.accept
    assert await post.send(delivery(there.url())) == Sent(status=200), "it has recovered"


async def test_what_is_not_there(there: Receiver, post: Sender) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    sent = await post.send(delivery(f"https://127.0.0.1:{port}/"))
    assert sent.why is Why.CONNECTION
    assert "refused" in sent.error.lower()
    assert (await post.send(delivery("https://no-such-host.invalid/"))).why is Why.NAME
    assert (await post.send(delivery(there.url(), token=None))).why is Why.TOKEN
    assert not there.posts


async def test_who_does_not_shake_hands_is_left_in_time(post: Sender) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        sent = await post.send(delivery(f"https://127.0.0.1:{mute.getsockname()[1]}/"))
    assert sent.why is Why.TIMEOUT


async def test_certificates_must_be_right(there: Receiver, tmp_path: Path) -> None:
    async with sender(Policy(private=True)) as post:
        sent = await post.send(delivery(there.url()))
        assert sent.why is Why.TLS
        assert sent.error in {"unable to get local issuer certificate", "self-signed certificate in certificate chain"}
    async with (
        receiver(tmp_path, "other.example") as other,
        sender(Policy(private=True, ca=other.ca)) as post,
    ):
        sent = await post.send(delivery(other.url()))
        assert sent.why is Why.TLS
        assert not other.posts
    assert not there.posts


async def test_no_private_address_by_whatever_way(there: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Literal, by name, and by a name that stands for something else the second time it is asked for."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: str, port: int, *more: Any, **named: Any) -> Any:
        if host != "rebound.example":
            return real(host, port, *more, **named)
        asked.append(host)
        return real("127.0.0.1", port, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    async with sender(Policy(timeout=5, ca=there.ca)) as post:
        for host in ("127.0.0.1", "localhost", "rebound.example", "[::1]", "[::ffff:127.0.0.1]", "0x7f000001"):
            sent = await post.send(delivery(there.url(host=host)))
            assert (sent.why, sent.error) == (Why.ADDRESS, "the address is not public"), host
        for host in ("127.1", "2130706433"):
            assert (await post.send(delivery(there.url(host=host)))).why is not None, host
    assert asked, "the resolver was asked"
    assert not there.connections


async def test_names_that_nobody_answers_for_keep_nobody_waiting(
    there: Receiver, post: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = asyncio.Event()
    loop = asyncio.get_running_loop()
    real = socket.getaddrinfo

    def look_up(host: str, *more: Any, **named: Any) -> Any:
        if host.startswith("slow"):
            asyncio.run_coroutine_threadsafe(hangs.wait(), loop).result(20)
        return real("127.0.0.1", *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    slow = [asyncio.create_task(post.send(delivery(there.url(host=f"slow{n}.example")))) for n in range(20)]
    await asyncio.sleep(0)
    assert await post.send(delivery(there.url(host="localhost"))) == Sent(status=200)
    assert {sent.why for sent in await asyncio.gather(*slow)} == {Why.TIMEOUT}
    hangs.set()


async def test_surroundings_decide_nothing(
    there: Receiver, post: Sender, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    there.behave = receivers.answer(200, **{"Set-Cookie": "a=b"})
    for _ in range(2):
        assert await post.send(delivery(there.url(host="localhost"))) == Sent(status=200)
    assert all("Cookie" not in each.headers for each in there.posts)
    assert {each.headers["Authorization"] for each in there.posts} == {TOKEN}


async def test_what_cannot_be_sent_harms_nobody(there: Receiver, post: Sender) -> None:
    """Nobody can register these; they might stand in the database all the same."""
    bad = delivery(there.url())
    for wrong in (replace(bad, url="https://"), replace(bad, url="ftp://x/"), replace(bad, token="a\r\nX: y")):
        assert (await post.send(wrong)).why in {Why.INTERNAL, Why.RESPONSE, Why.NAME}, wrong
    assert not there.posts


async def test_an_authority_that_cannot_be_read(tmp_path: Path) -> None:
    for content in (None, b"nothing"):
        path = tmp_path / "ca.pem"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(OSError, match=r"."):
            async with sender(Policy(ca=path)):
                pass
