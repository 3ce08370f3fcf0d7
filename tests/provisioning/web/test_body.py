"""provisioning/web/body.py"""

import asyncio
import gzip
import json
from contextlib import suppress
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import example, given
from hypothesis import strategies as st

from provisioning.model.refusal import Reason, Refusal
from provisioning.web import connection
from provisioning.web.body import is_json, read_bytes, read_json
from provisioning.web.parsing import MAX_DEPTH, MAX_DIGITS, parse_json

text = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**60), 10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)

REFUSED = {
    "nothing": b"",
    "blank": b" \n",
    "cut": b'{"a":',
    "more": b"{} {}",
    "not UTF-8": b'{"a":"\xff"}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "NaN": b'{"a":NaN}',
    "Infinity": b"[-Infinity]",
    "number above all floats": b"[1e999]",
    "integer of many digits": b"[" + b"9" * (MAX_DIGITS + 1) + b"]",
    "integer beyond any limit": b"9" * 100_000,
    "name twice": b'{"a":1,"a":2}',
    "name twice, deep inside": b'[{"x":{"a":1,"a":1}}]',
    "name twice, escaped": b'{"a":1,"\\u0061":2}',
    "one level too deep": b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
    "bomb of arrays": b"[" * 200_000,
    "bomb of closed arrays": b"[" * 200_000 + b"]" * 200_000,
    "bomb of objects": b'{"a":' * 200_000,
    "lone surrogate": b'{"a":"\\ud800"}',
    "lone surrogate in a name": b'{"\\udfff":1}',
    "NUL": b'["\\u0000"]',
    "control character": b'["\x01"]',
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_refuses(data: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        parse_json(data)
    assert caught.value.reason is Reason.MALFORMED
    assert caught.value.detail == {"field": "body"}


@given(values)
def test_reads_what_is_json(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


def test_reads_to_its_limits() -> None:
    assert parse_json(b"9" * MAX_DIGITS) == int("9" * MAX_DIGITS)
    parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert parse_json(b'"\\ud83d\\ude00"') == "\U0001f600"


@given(st.binary() | st.text(alphabet='{}[]",:0123456789.eE+-\\u \nNatrufls').map(str.encode))
@example(b"-")
@example(b'{"a":1}')
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(Refusal):
        value = parse_json(data)
        assert parse_json(json.dumps(value, allow_nan=False, ensure_ascii=False).encode("utf-8")) == value


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"',
     "application/json; charset=utf8", "application/json; version=2 ; Charset=UTF-8", "application/json;"],
)  # fmt: skip
def test_takes_content_type(content_type: str) -> None:
    assert is_json(content_type)


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "text/json", "application/json; charset=latin-1", "application/json; charset=utf-16",
     "application/json; charset=", "application/jsonp", "application/json, text/html", "application/json utf-8",
     "application/json; charset=utf-8; charset=utf-16", "application/x-www-form-urlencoded"],
)  # fmt: skip
def test_refuses_content_type(content_type: str) -> None:
    assert not is_json(content_type)


@given(st.text())
def test_any_content_type_is_judged(content_type: str) -> None:
    assert is_json(content_type) in {True, False}


LIMIT = 1_000


async def test_what_came_of_a_body_stands_for_whoever_asks_later() -> None:
    """The rest of a body that was taken in part is no body."""

    def come(*parts: bytes, end: bool = True) -> tuple[web.Request, aiohttp.StreamReader]:
        stream = aiohttp.StreamReader(Mock(_reading_paused=False), 2**16, loop=asyncio.get_running_loop())
        for part in parts:
            stream.feed_data(part)
        if end:
            stream.feed_eof()
        return make_mocked_request("POST", "/", payload=stream), stream

    whole, _ = come(b"12", b"34")
    assert [await read_bytes(whole, limit) for limit in (4, 9)] == [b"1234", b"1234"]
    with pytest.raises(Refusal, match="too_large"):
        await read_bytes(whole, 3)
    large, stream = come(b"12345", end=False)
    with pytest.raises(Refusal, match="too_large"):
        await read_bytes(large, 4)
    stream.feed_data(b"{}")
    stream.feed_eof()
    with pytest.raises(Refusal, match="too_large"):
        await read_bytes(large, 100)
    slow, stream = come(b"1", end=False)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(read_bytes(slow, 4), 0.01)
    stream.feed_data(b"{}")
    stream.feed_eof()
    with pytest.raises(Refusal, match="malformed"):
        await read_bytes(slow, 4)
    cut, stream = come(b"1", end=False)
    stream.set_exception(ConnectionResetError("gone"))
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            await read_bytes(cut, 4)


async def echo(request: web.Request) -> web.Response:
    try:
        return web.json_response({"got": await read_json(request, LIMIT)})
    except Refusal as refusal:
        return web.json_response({"reason": refusal.reason, **refusal.detail}, status=400)


ROUTE = web.post("/echo", echo)


async def post(site: Any, data: Any, **headers: str) -> Any:
    async with (
        aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as session,
        session.post(
            f"http://127.0.0.1:{site.port}/echo",
            data=data,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        ) as response,
    ):
        return await response.json()


TOO_LARGE = {"reason": "too_large", "field": "body", "limit": LIMIT}
MALFORMED = {"reason": "malformed", "field": "body"}


@pytest.mark.server
def test_body_over_the_wire(run: Any, serve: Any, lines: Any) -> None:
    async def scenario() -> None:
        async def pieces() -> Any:
            for byte in b'{"a": 1}':
                yield bytes([byte])

        async with serve(ROUTE) as site:
            assert await post(site, b'{"a":1}', Content_Type="application/json") == {"got": {"a": 1}}
            assert await post(site, pieces(), Content_Type="application/json") == {"got": {"a": 1}}
            assert await post(site, b'{"a":', Content_Type="application/json") == MALFORMED
            assert await post(site, None, Content_Type="application/json") == MALFORMED
            exact = b'"' + b"a" * (LIMIT - 2) + b'"'
            assert len((await post(site, exact, Content_Type="application/json"))["got"]) == LIMIT - 2

    run(scenario())


@pytest.mark.server
def test_media_type_over_the_wire(run: Any, serve: Any, lines: Any) -> None:
    async def scenario() -> None:
        async with serve(ROUTE) as site:
            wrong_type = {"reason": "unsupported_media_type", "field": "Content-Type"}
            assert await post(site, b"{}") == wrong_type
            assert await post(site, b"{}", Content_Type="text/plain") == wrong_type
            wrong_coding = {"reason": "unsupported_media_type", "field": "Content-Encoding"}
            for coding in ("gzip", "deflate", "br", "x-unknown", "identity, gzip"):
                packed = gzip.compress(b"{}")
                answer = await post(site, packed, Content_Type="application/json", Content_Encoding=coding)
                assert answer == wrong_coding, coding
            plain = await post(site, b"{}", Content_Type="application/json", Content_Encoding="Identity")
            assert plain == {"got": {}}

    run(scenario())


@pytest.mark.server
def test_nothing_inflates_a_compressed_body(run: Any, serve: Any, lines: Any) -> None:
    packed = gzip.compress(bytes(1_000_000))

    async def size(request: web.Request) -> web.Response:
        return web.json_response({"bytes": len(await request.read())})

    async def scenario() -> None:
        async with serve(web.post("/echo", size)) as site:
            answer = await post(site, packed, Content_Type="application/json", Content_Encoding="gzip")
            assert answer == {"bytes": len(packed)}

    run(scenario())


HEADER = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.server
def test_announced_length_is_refused_before_the_body_comes(
    run: Any, serve: Any, talk: Any, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LINGER", 0.05)

    async def scenario() -> None:
        async with serve(ROUTE) as site:
            answer = await talk(site, HEADER + b"Content-Length: 1001\r\n\r\n")
            head, _, body = answer.partition(b"\r\n\r\n")
            assert json.loads(body) == TOO_LARGE
            assert b"connection: close" in head.lower()

    run(scenario())


@pytest.mark.server
def test_a_client_that_reads_only_after_its_last_byte_still_gets_its_refusal(
    run: Any, serve: Any, talk: Any, lines: Any
) -> None:
    async def scenario() -> None:
        async with serve(ROUTE) as site:
            answer = await talk(site, HEADER + b"Content-Length: 8000000\r\n\r\n", *[bytes(1_000_000)] * 8)
            assert json.loads(answer.partition(b"\r\n\r\n")[2]) == TOO_LARGE

    run(scenario())


@pytest.mark.server
def test_a_client_that_sends_on_still_gets_its_refusal(run: Any, serve: Any, lines: Any) -> None:
    async def scenario() -> None:
        async with serve(ROUTE) as site:
            big = b'"' + b"a" * 1_000_000 + b'"'
            assert await post(site, big, Content_Type="application/json") == TOO_LARGE

            async def endless() -> Any:
                for _ in range(300):
                    yield b"a" * 10_000

            assert await post(site, endless(), Content_Type="application/json") == TOO_LARGE
            assert await post(site, big, Content_Type="text/plain") == {
                "reason": "unsupported_media_type",
                "field": "Content-Type",
            }

    run(scenario())


CHUNKED, BROKEN = (
    HEADER + b"Transfer-Encoding: chunked\r\n\r\n",
    b"2\r\n[]\r\nzz\r\n",
)  # what came is JSON, and is not all


@pytest.mark.server
def test_broken_chunks_with_their_header(run: Any, serve: Any, talk: Any, lines: Any) -> None:
    async def scenario() -> None:
        async with serve(ROUTE) as site:
            answer = await talk(site, CHUNKED + BROKEN)
            assert answer.startswith(b"HTTP/1.0 400 ")
            assert answer.lower().count(b"content-length") == 1

    run(scenario())
    assert [line["reason"] for line in lines] == ["malformed"]


@pytest.mark.server
def test_broken_chunks_while_the_body_is_read(run: Any, serve: Any, lines: Any, until: Any) -> None:
    async def scenario() -> None:
        async with serve(ROUTE) as site:
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(CHUNKED)
            await until(lambda: site._open and not next(iter(site._open)).is_idle)
            writer.write(BROKEN)
            answer = await asyncio.wait_for(reader.read(), 5)
            head, _, body = answer.partition(b"\r\n\r\n")
            assert json.loads(body) == MALFORMED
            assert b"connection: close" in head.lower()
            writer.close()

    run(scenario())
    assert lines == []  # the one line is the operation's, and this route is none
