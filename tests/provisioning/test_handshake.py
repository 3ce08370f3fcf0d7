"""provisioning/handshake.py, on both event loops: good handshakes, bad ones, and what is left of them."""

import asyncio
import errno
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvloop

from provisioning import handshake as module
from provisioning.handshake import Handshake, Terms, accept, bind, words
from provisioning.model.mqtt import Peer
from tests import peers
from tests.conftest import until

pytestmark = pytest.mark.server


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Coroutine[Any, Any, None]], None]]:
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner.run


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """The structured log; a test fails when asyncio logged anything of its own."""
    before = structlog.get_config()
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as captured:
        yield captured
    structlog.configure(**before)
    assert [record.getMessage() for record in caplog.records if record.levelname != "DEBUG"] == []


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files")
    peers.write(path / "server.pem", peers.leaf("server", "localhost"))
    peers.write(path / "device.pem", peers.leaf("device"))
    return path


class Echo(asyncio.Protocol):
    """Says what it is told, and what it has been through."""

    def __init__(self, house: "House") -> None:
        self._house = house

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._house.open_when_made.append(len(self._house.shaking))

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._house.lost += 1


class House:
    """A listener as handshakes see it."""

    def __init__(self, bound: socket.socket, room: int = 1_000) -> None:
        self.port: int = bound.getsockname()[1]
        self.bound = bound
        self.room = room
        self.shaking: set[Handshake] = set()
        self.entered = self.left = self.lost = 0
        self.open_when_made: list[int] = []

    def enter(self, handshake: Handshake) -> bool:
        self.entered += 1
        if len(self.shaking) >= self.room:
            return False
        self.shaking.add(handshake)
        return True

    def leave(self, handshake: Handshake) -> None:
        self.left += 1
        self.shaking.discard(handshake)


@asynccontextmanager
async def opened(files: Path, *, seconds: float = 5.0, **more: Any) -> AsyncIterator[House]:
    (bound,) = await bind("127.0.0.1", 0, 100)
    house = House(bound, **more)
    terms = Terms(
        context=peers.server(files / "server.pem", ssl.CERT_REQUIRED), timeout=seconds, begin=lambda _: Echo(house),
        enter=house.enter, leave=house.leave, refused="x.login", overload="x.overload",
    )  # fmt: skip
    accepting = asyncio.create_task(accept(bound, terms))
    try:
        yield house
    finally:
        accepting.cancel()
        await asyncio.wait([accepting])
        bound.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def talk(house: House, context: ssl.SSLContext) -> bytes:
    """Speak at once, as a client of TLS 1.3 may: in one segment with the end of its handshake."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port, ssl=context, server_hostname="localhost")
    writer.write(b"hello")
    try:
        return await asyncio.wait_for(reader.readexactly(5), 5)
    finally:
        writer.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_connections_are_handed_over_and_nothing_is_lost(
    run: Any, lines: list[Any], files: Path, version: ssl.TLSVersion
) -> None:
    async def scenario() -> None:
        context = peers.client(files / "device.pem")
        context.minimum_version = context.maximum_version = version
        async with opened(files) as house:
            answers = await asyncio.gather(*(talk(house, context) for _ in range(40)))
            assert answers == [b"hello"] * 40
            await until(lambda: house.lost == 40, "the connections to end")
            assert (house.entered, house.left, len(house.open_when_made)) == (40, 40, 40)
            assert house.open_when_made[-1] == 0, "a handshake has left before its connection begins"

    run(scenario())
    assert lines == []


def _has(lines: list[Any], count: int) -> bool:
    return len(lines) == count


def test_each_failure_leaves_one_line(run: Any, lines: list[Any], files: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(files, seconds=0.3) as house:
            for number, (kind, (come, why)) in enumerate(peers.bad_clients(tmp_path).items(), 1):
                began = time.monotonic()
                await come(house.port)
                assert time.monotonic() - began < 2, f"the deadline of {kind}"
                await until(partial(_has, lines, number), f"the line of {kind}")
                line = lines[-1]
                assert line.pop("peer").startswith("127.0.0.1:")
                assert line == {
                    "event": "x.login", "protocol": "none", "outcome": "refused", "reason": "tls", "tls": why,
                    "log_level": "info",
                }, kind  # fmt: skip
            await until(lambda: not house.shaking and house.entered == house.left, "them to leave")
            assert await talk(house, peers.client(files / "device.pem")) == b"hello"

    run(scenario())


def test_where_there_is_no_room_there_is_no_handshake(run: Any, lines: list[Any], files: Path) -> None:
    async def scenario() -> None:
        async with opened(files, room=1) as house:
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
            await until(lambda: house.shaking, "the first")
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await talk(house, peers.client(files / "device.pem"))
            assert (house.entered, house.left) == (2, 1)
            writer.close()
            await until(lambda: not house.shaking, "the first to go")
            assert await talk(house, peers.client(files / "device.pem")) == b"hello"
            del reader

    run(scenario())
    assert [line["tls"] for line in lines] == ["connection lost"]


def test_cutting_off_closes_at_once_and_leaves_nothing(run: Any, lines: list[Any], files: Path) -> None:
    async def cut_off(house: House) -> None:
        clients = [await asyncio.open_connection("127.0.0.1", house.port) for _ in range(9)]
        clients[0][1].write(peers.hello(b"localhost"))
        assert await clients[0][0].readexactly(1) == b"\x16", "the server's part of the handshake"
        await until(lambda: len(house.shaking) == 9, "the others")
        for each in tuple(house.shaking):
            each.close("shutdown")
        for reader, writer in clients:
            async with asyncio.timeout(2):
                await reader.read()
            writer.close()
        await until(lambda: not house.shaking, "them to leave")

    async def scenario() -> None:
        async with opened(files) as house:
            await cut_off(house)  # a loop has files of its own, and opens some of them late
            files_, tasks = open_files(), len(asyncio.all_tasks())
            await cut_off(house)
            await until(lambda: len(asyncio.all_tasks()) == tasks, "their tasks to end")
            await until(lambda: open_files() == files_, "their files to be closed")

    run(scenario())
    assert lines == []


def test_one_that_is_cut_off_before_it_began(run: Any, lines: list[Any], files: Path) -> None:
    async def scenario() -> None:
        async with opened(files) as house:

            def stop_it(handshake: Handshake) -> bool:
                asyncio.get_running_loop().call_soon(handshake.abort)
                return house.enter(handshake)

            terms = Terms(
                context=peers.server(files / "server.pem"), timeout=5, begin=lambda _: asyncio.Protocol(),
                enter=stop_it, leave=house.leave, refused="x.login", overload="x.overload",
            )  # fmt: skip
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            Handshake(terms, ours, Peer("", 0)).start()
            await until(lambda: not house.shaking, "it to leave")
            assert theirs.recv(1) == b""
            assert ours.fileno() == -1
            theirs.close()

    run(scenario())
    assert lines == []


def test_no_room_in_the_system(run: Any, lines: list[Any], files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACCEPT_AGAIN", 0.01)
    failing = [OSError(errno.EMFILE, "Too many open files"), ConnectionAbortedError()]
    original = socket.socket.accept

    def full(self: socket.socket) -> Any:
        if failing:
            raise failing.pop(0)
        return original(self)

    async def scenario() -> None:
        async with opened(files) as house:
            monkeypatch.setattr(socket.socket, "accept", full)
            assert await talk(house, peers.client(files / "device.pem")) == b"hello"

    run(scenario())
    assert lines == [
        {
            "event": "x.overload", "outcome": "failed", "reason": "accept",
            "error": "[Errno 24] Too many open files", "log_level": "warning",
        }
    ]  # fmt: skip


# --- bind ---


def test_bind(run: Any) -> None:
    async def scenario() -> None:
        for host, expected in (("127.0.0.1", {"127.0.0.1"}), ("0.0.0.0", {"0.0.0.0"})):
            bound = await bind(host, 0, 5)
            assert {each.getsockname()[0] for each in bound} == expected
            assert not any(each.getblocking() for each in bound)
            for each in bound:
                each.close()

    run(scenario())


@contextmanager
def resolving(*addresses: tuple[str, int]) -> Iterator[None]:
    """A loop whose resolver knows these addresses."""

    async def getaddrinfo(*_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", each) for each in addresses]

    with pytest.MonkeyPatch.context() as patch:
        loop = type("Loop", (), {"getaddrinfo": staticmethod(getaddrinfo)})()
        patch.setattr(asyncio, "get_running_loop", lambda: loop)
        yield


def test_bind_an_address_that_is_named_twice(run: Any) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with resolving(("127.0.0.1", port), ("127.0.0.1", port), ("127.0.0.2", port)):
            bound = await bind("twice", port, 5)
        assert [each.getsockname() for each in bound] == [("127.0.0.1", port), ("127.0.0.2", port)]
        for each in bound:
            each.close()

    run(scenario())


def test_bind_all_or_none(run: Any) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.1.2.4", 0)) as taken:
            port = taken.getsockname()[1]
            with resolving(("127.1.2.3", port), ("127.1.2.4", port)), pytest.raises(OSError, match="in use"):
                await bind("both", port, 5)
            socket.create_server(("127.1.2.3", port)).close()  # raises, if it were still bound

    run(scenario())


def test_bind_where_nothing_is(run: Any) -> None:
    async def scenario() -> None:
        with pytest.raises(OSError):  # noqa: PT011 - the resolver's words are its own
            await bind("nowhere.invalid", 0, 5)

    run(scenario())


# --- words ---


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionAbortedError("SSL handshake is taking longer than 60 seconds"), "timeout"),
        (TimeoutError(), "timeout"),
        (ConnectionResetError(), "connection lost"),
        (BrokenPipeError(), "connection lost"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "connection lost"),
        (ssl.SSLError(1, "[X] of a kind without a reason"), "[x] of a kind without a reason"),
    ],
)
def test_words(error: Exception, said: str) -> None:
    assert words(error) == said
