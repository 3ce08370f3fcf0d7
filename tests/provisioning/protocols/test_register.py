"""provisioning/protocols/register.py: the path that two vendors share, through a service."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import pytest

from provisioning.app import Running
from provisioning.protocols.register import LARGEST_BODY
from tests.conftest import Serve, load_rows, until
from tests.provisioning.protocols.conftest import Lines
from tests.provisioning.protocols.ioto.conftest import PRODUCT, TOKEN
from tests.registrants import NO_LIMITS, Registrant, body_of, signed
from tests.registrants import PRODUCT as TENCENT

pytestmark = pytest.mark.server

PATH = "/device/register"
TIMEOUT = 1.0
IOTO = {"Authorization": f"bearer {TOKEN}", "Content-Type": "application/json"}


@pytest.fixture
async def running(serve: Serve) -> Running:
    service = await serve(tencent=NO_LIMITS, http={"request_timeout": TIMEOUT})
    await load_rows(service, PRODUCT, TENCENT)
    return service


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(skip_auto_headers={"Content-Type"}) as made:
        yield made


class Client:
    def __init__(self, session: aiohttp.ClientSession, running: Running) -> None:
        self.session = session
        self.url = f"http://127.0.0.1:{running.http.port}{PATH}"

    async def post(self, body: Any, headers: dict[str, str] | None = None, path: str = "") -> tuple[int, str, str]:
        """Status, whose answer it is by its media type, and its text."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(self.url + path, data=data, headers=headers) as response:
            text = await response.text()
            return response.status, whose(response.content_type, text), text


def whose(content_type: str, text: str) -> str:
    """Tencent's answers are JSON with a code or a Response; Ioto's are bare objects, or plain text."""
    if content_type == "text/plain":
        return "ioto"
    fields = json.loads(text)
    return "tencent" if {"code", "Response"} & fields.keys() else "ioto"


@pytest.fixture
def client(session: aiohttp.ClientSession, running: Running) -> Client:
    return Client(session, running)


async def test_each_vendors_devices_register(client: Client, running: Running, lines: Lines) -> None:
    assert (await Registrant(client.session, running).register()).psk()
    assert await client.post({"id": "D1"}, IOTO) == (200, "ioto", '{"registered":true}')
    told = [(line["protocol"], line["outcome"]) for line in lines if line["event"] == "http.register"]
    assert told == [("tencent", "accepted"), ("ioto", "accepted")], "one line for each request"


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        ({"id": "D1", "ProductId": "x"}, IOTO, "tencent"),
        ({"id": "D1", "ProductId": None}, IOTO, "tencent"),
        ({"id": "D1"}, IOTO | {"X-TC-Nonce": "1"}, "tencent"),
        ({"id": "D1"}, IOTO | {"x-tc-anything": ""}, "tencent"),
        (b"", {"X-TC-Signature": "x"}, "tencent"),
        ({"id": "D1", "productId": TOKEN}, IOTO, "ioto"),
        ({"id": "D1", "nested": {"ProductId": "x"}}, IOTO, "ioto"),
        (["ProductId"], IOTO, "ioto"),
        ("ProductId", IOTO, "ioto"),
        ({}, {}, "ioto"),
        (b"", {}, "ioto"),
        (b"{", IOTO, "ioto"),
        (b"\xff\xfe", IOTO, "ioto"),
        (b'{"ProductId":1,"ProductId":2}', IOTO, "ioto"),
        (b"[" * 10_000, IOTO, "ioto"),
        ({"ProductId": "x"}, IOTO | {"Content-Encoding": "gzip"}, "ioto"),
    ],
)
async def test_whose_a_request_is(client: Client, body: Any, headers: dict[str, str], expected: str) -> None:
    status, found, text = await client.post(body, headers)
    assert found == expected, (status, text)
    assert status < 500


@pytest.mark.parametrize(("headers", "expected"), [(IOTO, "ioto"), (IOTO | {"X-TC-Nonce": "1"}, "tencent")])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_body_is_refused(client: Client, headers: dict[str, str], expected: str, chunked: bool) -> None:
    """What is too large to be looked into is not Tencent's by its body; both vendors take so much."""
    body = b'{"ProductId":"%s"}' % (b"x" * LARGEST_BODY)

    async def parts() -> AsyncIterator[bytes]:
        yield body

    async with client.session.post(client.url, data=parts() if chunked else body, headers=headers) as response:
        text = await response.text()
        assert whose(response.content_type, text) == expected
        assert "too large" in text.lower() or expected == "tencent", text


async def talk(running: Running, *parts: bytes) -> bytes:
    """Send, and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.http.port)
    for part in parts:
        writer.write(part)
        await writer.drain()
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("header", "status"), [(f"Authorization: bearer {TOKEN}", b"400 Bad Request"), ("X-TC-Nonce: 1", b"200 OK")]
)
async def test_a_body_that_does_not_come(running: Running, lines: Lines, header: str, status: bytes) -> None:
    """Whoever waits for it, answers when its time is over; nobody waits a second time, or takes the rest for a body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.http.port)
    writer.write(f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n{header}\r\n\r\n".encode() + b'{"id":')
    began = asyncio.get_running_loop().time()
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n"), 5)
    assert answer == b"HTTP/1.1 " + status + b"\r\n"
    assert asyncio.get_running_loop().time() - began < 2 * TIMEOUT
    (line,) = (line for line in lines if line["event"] == "http.register")
    assert (line["outcome"], line["reason"]) == ("refused", "malformed")
    writer.transport.abort()


async def test_a_client_that_leaves_within_the_body(running: Running, lines: Lines) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", running.http.port)
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\nAuthorization: bearer {TOKEN}\r\n\r\n"
    writer.write(head.encode() + b'{"id":')
    await until(lambda: running.http.connections, "the connection")
    writer.transport.abort()

    def told() -> list[Any]:
        return [line for line in lines if line["event"] == "http.register"]

    (line,) = await until(told, "its line")
    assert (line["outcome"], line["reason"]) == ("failed", "client_gone")


async def test_the_rest_of_a_large_body_is_no_body(client: Client, lines: Lines) -> None:
    """Nothing of it registers a device."""

    async def parts() -> AsyncIterator[bytes]:
        yield b" " * (LARGEST_BODY + 1)
        await until(lambda: [line for line in lines if line["event"] == "http.register"], "the refusal")
        yield b'{"id":"D2"}'

    with suppress(aiohttp.ClientError):  # it may hear no more of an answer that came so early
        async with client.session.post(client.url, data=parts(), headers=IOTO) as response:
            assert (response.status, await response.text()) == (400, "Request too large")
    (line,) = (line for line in lines if line["event"] == "http.register")
    assert (line["protocol"], line["reason"]) == ("ioto", "too_large")


async def test_a_body_in_pieces_is_read_once(running: Running) -> None:
    for body, headers in (
        (b'{"id":"D1"}', f"Authorization: bearer {TOKEN}\r\n"),
        (body_of(), "".join(f"{name}: {value}\r\n" for name, value in signed(body_of(), host="a").items())),
    ):
        head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        answer = await talk(running, head.encode(), *(bytes([byte]) for byte in body))
        assert answer.startswith(b"HTTP/1.1 200"), answer
        assert b'"registered":true' in answer or b'"Payload"' in answer


async def test_other_methods_and_neighbours(client: Client) -> None:
    async with client.session.get(client.url) as response:
        assert response.status == 405
    assert (await client.post({"id": "D1"}, IOTO, "/"))[0] == 404
