"""What nobody should send, to every operation: always one of the vendor's answers, never a failure of ours.

That the forms refuse each wrong value is in test_forms.py; here requests go all the way.
"""

import asyncio
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from provisioning.protocols.ublox.call import AnyOperation, Guard
from provisioning.protocols.ublox.routes import ROUTES
from tests.conftest import Serve
from tests.provisioning.protocols.conftest import Lines
from tests.ublox import Answer, Client, client
from tests.ublox_requests import INSTEAD, MINE, NOBODYS, REQUESTS, WRONG, Things, kind_of
from tests.ublox_world import furnish

pytestmark = pytest.mark.server

JSON = "application/json"
AT_ONCE = 12
"""Requests under way."""
MIB = 1_048_576

NOT_JSON = (
    b"not json", b"{", b"\xff\xfe\x00", b'{"A":1,"A":2}', b"NaN", b'{"A":Infinity}', b'{"A":1e999}',
    b"[" * 50_000, b'{"A":' * 50_000, b'{"A":"\\u0000"}', b'{"A":"\\ud800"}', b'{"\\udfff":1}', b"9" * 10_000,
    b"{}{}", b"\xef\xbb\xbf{}",
)  # fmt: skip
NO_OBJECT = (b"[]", b"null", b"1", b'"x"', b"true", b"[{}]")
NO_JSON_TYPE = (
    None,
    "",
    "text/plain",
    "application/xml",
    "multipart/form-data; boundary=x",
    "application/json; charset=latin-1",
)
NO_TABLE = (
    b"", b"\n", b"\x00", b"\xff\xfe", b"Id", b"Id,Type,Action", b"Id,Type,Action\n0002000100003fff",
    b"Id,Type,Action\n0002000100003fff,ROTPublicUID,MOVE", b"Id,Type,Action\n0002000100003fff,ICCID,ADD",
    b"Id,Type,Action\nx,ROTPublicUID,ADD", b"Id,Type,Action\n\x00,ROTPublicUID,ADD",
    b"Id,Type,Action\n0002000100003fff,ROTPublicUID,ADD,more", b'Id,Type,Action\n"0002000100003fff,ROTPublicUID,ADD',
    b"Type,Id\nROTPublicUID,1", b"{}", b"," * 200_000, b"\n" * 200_000, b'"' * 200_000, b"Id,Type,Action\n" * 20_000,
)  # fmt: skip
NO_TOKENS = (
    "", "Bearer", "Bearer ", "Bearer x", "Basic dTpw", "a.b.c", "Bearer a.b.c", "..", "Bearer ..", "\t", "x" * 8_000,
    "Bearer " + "a" * 3_000 + "." + "b" * 3_000 + ".c", "Bearer eyJhbGciOiJub25lIn0.e30.", "Bearer W10.W10.W10",
    "Bearer \xe9.\xe9.\xe9", "Bearer bnVsbA.bnVsbA.bnVsbA",
)  # fmt: skip
STRANGE = (
    "x" * 100_000, "", "*", "%", "_", "'; DROP TABLE tag; --", "\u202e", "\U0001f511" * 64, "\x01\x7f", "../etc/passwd",
)  # fmt: skip
TIMES = (
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01", "9999-12-31", "2020-02-01T00:00:00+14:00",
    "2020-02-01T00:00:00-12:00", "2020-02-01",
)  # fmt: skip
ODD: Mapping[str, Sequence[Any]] = {
    "text": STRANGE,
    "texts": (*([each] for each in STRANGE), [str(number) for number in range(1_000)], []),
    "uids": (list(range(1_000)), ["0002000289300087"] * 1_000, []),
    "number": (1.0,),
    "time": TIMES,
    "day": TIMES,
    "object": ({}, {"Authorizations": []}, {"Authorizations": [1]}, {"Zerotouch": "x"}, {"NetworkParameters": [{}]}),
}
"""Values of a field's kind that are hardly ever meant."""
BEYOND = (0, -1, 2**31, 2**63, 10**30, -(10**30))
"""No number of a request is so small or so large, but for a page's."""
PAGES = (10**9, 10**18, 10**30)


Expected = Mapping[int, tuple[str, ...] | None]


@dataclass(frozen=True)
class Bad:
    """A request, and the answers that it may get: status -> messages."""

    about: str
    data: bytes
    expected: Expected
    content_type: str | None = JSON
    headers: tuple[tuple[str, str], ...] = ()
    with_token: bool = True


REFUSED: Expected = {400: ("Bad Request",)}
ANY: Expected = dict.fromkeys((200, 400, 401, 404, 409))


def whole_bodies(row: AnyOperation) -> Iterator[Bad]:
    """Bodies that are wrong as a whole, types, tokens: the same for all operations."""
    good = json.dumps(REQUESTS[row.path](NOBODYS)).encode()
    if not row.get:
        for data in (*NOT_JSON, *NO_OBJECT):
            yield Bad(f"body {data[:20]!r}", data, REFUSED)
        needs_nothing = not row.reader.ONE_OF and not any(
            field.is_required() for field in row.reader.model_fields.values()
        )
        for data in (b"", b" ", b"{}"):
            yield Bad(f"body {data!r}", data, ANY if needs_nothing else REFUSED)
        for kind in NO_JSON_TYPE:
            yield Bad(f"type {kind}", good, {415: ("Unsupported Media Type",)}, content_type=kind)
    if row.csv is not None:
        for data in NO_TABLE:
            yield Bad(f"file {data[:50]!r}", data, {400: None}, content_type="application/octet-stream")
    yield Bad("1 MiB + 1", good + b" " * (MIB + 1 - len(good)), {413: ("Payload Too Large",)})
    yield Bad("gzip", good, {415: ("Unsupported Media Type",)}, headers=(("Content-Encoding", "gzip"),))
    if row.guard is not Guard.OPEN:
        wrong = {401: ("Not Authorized.",)}
        yield Bad("no token", good, wrong, with_token=False)
        for token in NO_TOKENS:
            yield Bad(f"token {token[:30]!r}", good, wrong, headers=(("Authorization", token),), with_token=False)


def fields(row: AnyOperation, things: Things) -> Iterator[Bad]:
    """Good bodies with one field that is wrong or odd."""
    good = REQUESTS[row.path](things)
    for field in row.reader.model_fields.values():
        name = str(field.alias)
        kind = kind_of(row.path, name)
        rule = next((rule for rule in (*row.reader.ONE_OF, *row.reader.AT_MOST_ONE_OF) if name in rule), ())
        rest = {other: value for other, value in good.items() if other not in rule}
        for value in (*WRONG[kind][:2], WRONG[kind][-1], *(BEYOND if kind == "number" else ())):
            yield with_value(rest, name, value, {400: (f"Bad Request. Invalid {name}",)})
        for number in PAGES if kind == "page" else ():
            yield with_value(rest, name, number, {200: None})
        for value in ODD.get(kind, ()):
            yield with_value(rest, name, value, ANY)
        for other in rule:
            if other != name:
                both = rest | {other: INSTEAD[other](things)}
                yield with_value(both, name, INSTEAD[name](things), REFUSED)


def with_value(rest: dict[str, Any], name: str, value: Any, expected: Expected) -> Bad:
    return Bad(f"{name}: {value!r:.60}", json.dumps(rest | {name: value}).encode(), expected)


def failures(lines: Lines) -> list[Any]:
    """Requests that failed by our own fault, and errors of any kind."""
    return [
        line for line in lines
        if (line["event"].startswith("http.") and line["outcome"] == "failed")
        or line["log_level"] in {"error", "critical"}
    ]  # fmt: skip


async def send(api: Client, path: str, bad: Bad, method: str = "POST") -> Answer:
    headers = dict(bad.headers)
    if bad.content_type is not None:
        headers["Content-Type"] = bad.content_type
    if bad.with_token:
        headers["Authorization"] = f"Bearer {api.token}"
    async with api.http.request(
        method, f"{api.url}{path}", headers=headers, skip_auto_headers=["Content-Type"],
        data=io.BytesIO(bad.data),  # of large bytes aiohttp warns
    ) as response:  # fmt: skip
        return Answer(response.status, json.loads(await response.text()))


def problem(row: AnyOperation, bad: Bad, answer: Answer) -> str | None:
    """What is wrong with the answer."""
    told = f"{row.path}, {bad.about}: {answer.status} {answer.body!r:.200}"
    if answer.status not in bad.expected:
        return f"{told}, expected {list(bad.expected)}"
    if answer.status == 200:
        return None
    key = "Message" if row.marked and answer.status in {400, 404, 409} else "message"
    if not isinstance(answer.body, dict) or list(answer.body) != [key] or not isinstance(answer.body[key], str):
        return f"{told}, expected the key {key}"
    messages = bad.expected[answer.status]
    if messages is not None and answer.body[key] not in messages:
        return f"{told}, expected {messages}"
    return None


async def check(api: Client, lines: Lines, cases: Sequence[tuple[AnyOperation, Bad]]) -> None:
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(row: AnyOperation, bad: Bad, version: str) -> str | None:
        async with turn:
            return problem(row, bad, await send(api, version + row.path, bad))

    found = await asyncio.gather(*(one(row, bad, "/v1" if n % 2 else "") for n, (row, bad) in enumerate(cases)))
    problems = [each for each in found if each is not None]
    assert not problems, "\n".join(problems[:40])
    assert not failures(lines)


async def test_bodies_types_and_tokens(api: Client, lines: Lines) -> None:
    await check(api, lines, [(row, bad) for row in ROUTES for bad in whole_bodies(row)])


async def test_fields(serve: Serve, lines: Lines) -> None:
    """Of requests about things that there are: they are refused for that field, or they pass."""
    running = await serve(ublox={"rate": 0, "webhook_private": True})
    async with client(running) as api:
        things = await furnish(running, api, MINE)
        await check(api, lines, [(row, bad) for row in ROUTES for bad in fields(row, things)])


async def test_other_paths_and_methods(api: Client, lines: Lines) -> None:
    for path in ("/v1/", "/v1/unknown", "/v1/tag/get/", "/v1//tag/get", "/v1/v1/tag/get", "/v1/TAG/GET"):
        for method in ("GET", "POST", "PUT", "DELETE"):
            answer = await send(api, path, Bad("", b"{}", {}), method)
            assert (answer.status, answer.body) == (404, {"message": "Not Found"}), f"{method} {path}"
    for row in ROUTES:
        for method in ("PUT", "DELETE", "PATCH") if row.get else ("GET", "PUT", "DELETE", "PATCH"):
            answer = await send(api, f"/v1{row.path}", Bad("", b"{}", {}), method)
            assert (answer.status, answer.body) == (404, {"message": "Not Found"}), f"{method} {row.path}"
    assert not failures(lines)
