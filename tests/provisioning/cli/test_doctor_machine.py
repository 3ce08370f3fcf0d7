import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from provisioning import settings as settings_module
from provisioning.cli import doctor_machine
from provisioning.cli.doctor import Finding, Level


def settings(**given: Any) -> settings_module.Settings:
    return settings_module.load(**given)


async def finding(check: str, **given: Any) -> Finding:
    (only,) = [each async for each in doctor_machine.examine(settings(**given)) if each.check == check]
    return only


# --- files ---


@pytest.mark.parametrize(
    ("mode", "status"),
    [(0o700, Level.OK), (0o755, Level.OK), (0o775, Level.PROBLEM), (0o777, Level.PROBLEM)],
)
async def test_who_may_write_the_data_directory(tmp_path: Path, mode: int, status: Level) -> None:
    path = tmp_path / "data"
    path.mkdir()
    path.chmod(mode)
    found = await finding("data directory", data_dir=path)
    assert found.status is status
    assert found.advice == ("" if status is Level.OK else f"chmod go-w {path}")


async def test_a_data_directory_that_is_none(tmp_path: Path) -> None:
    assert (await finding("data directory", data_dir=tmp_path / "new")).status is Level.WARNING
    file = tmp_path / "file"
    file.touch()
    assert (await finding("data directory", data_dir=file)).finding == f"{file} is not a directory"
    assert (await finding("data directory", data_dir=file / "below")).status is Level.PROBLEM
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("mode", "content", "status", "words"),
    [
        (0o600, "00" * 32, Level.OK, "keep a copy elsewhere"),
        (0o400, "00" * 32, Level.OK, "keep a copy elsewhere"),
        (0o640, "00" * 32, Level.PROBLEM, "others may read"),
        (0o604, "00" * 32, Level.PROBLEM, "others may read"),
        (0o600, "no key at all", Level.PROBLEM, "the master key is neither base64 nor hex"),
        (0o600, "", Level.PROBLEM, "the master key has 0 bytes"),
    ],
)
async def test_the_master_key(tmp_path: Path, mode: int, content: str, status: Level, words: str) -> None:
    path = tmp_path / "master.key"
    path.write_text(content)
    path.chmod(mode)
    found = await finding("master key", data_dir=tmp_path)
    assert (found.status, words in found.finding) == (status, True), found


async def test_a_master_key_that_is_not_there(tmp_path: Path) -> None:
    assert (await finding("master key", data_dir=tmp_path)).status is Level.WARNING
    assert not (tmp_path / "master.key").exists()


async def test_a_master_key_from_the_settings(tmp_path: Path) -> None:
    assert (await finding("master key", data_dir=tmp_path, master_key="00" * 32)).status is Level.OK
    wrong = await finding("master key", data_dir=tmp_path, master_key="hush")
    assert wrong.status is Level.PROBLEM
    assert "hush" not in wrong.finding


# --- clock, limits, address ---


async def test_a_clock_that_was_never_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await finding("clock")).status is Level.OK

    class Early(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Early":
            return cls(1970, 1, 1, tzinfo=tz)

    monkeypatch.setattr(doctor_machine, "datetime", Early)
    found = await finding("clock")
    assert (found.status, "1970-01-01" in found.finding) == (Level.PROBLEM, True)


@pytest.mark.parametrize(
    ("hard", "status"),
    [(99, Level.WARNING), (100, Level.OK), (resource.RLIM_INFINITY, Level.OK)],
)
async def test_the_limit_of_open_files(monkeypatch: pytest.MonkeyPatch, hard: int, status: Level) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1, hard))
    assert (await finding("open files", mqtt={"max_connections": 100})).status is status


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"pki": {"url": "http://pki.example"}}, Level.OK),
        ({"http": {"host": "192.0.2.1"}}, Level.OK),
        ({}, Level.INFO),
        ({"http": {"host": "0.0.0.0"}}, Level.WARNING),
        ({"http": {"port": 0}}, Level.WARNING),
    ],
)
async def test_the_address_that_stands_in_certificates(given: dict[str, Any], status: Level) -> None:
    assert (await finding("published at", **given)).status is status


# --- listeners ---


@asynccontextmanager
async def listener(answer: bytes) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer:
            await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", "ready on 127.0.0.1:{}"),
        (b"HTTP/1.1 503 No\r\n\r\n", "listens on 127.0.0.1:{}, and is not ready: its log tells why"),
        (b"HTTP/1.1 404 No\r\n\r\n", "somebody else listens on 127.0.0.1:{}"),
        (b"SSH-2.0 \xff\r\n", "somebody else listens on 127.0.0.1:{}"),
        (b"", "somebody else listens on 127.0.0.1:{}"),
        (b"x" * 100_000, "somebody else listens on 127.0.0.1:{}"),
    ],
)
async def test_who_listens(answer: bytes, words: str) -> None:
    async with listener(answer) as port:
        given = settings(http={"port": port}, mqtt={"port": port}, mqtts={"port": 0})
        found = {each.check: each async for each in doctor_machine.listeners(given)}
    assert found["http"].finding == words.format(port)
    assert found["mqtt"].finding == f"somebody listens on 127.0.0.1:{port}"
    assert found["mqtts"].finding == "takes any free port: not checked"
    assert {each.status for each in found.values()} == {Level.INFO}


async def test_nobody_listens() -> None:
    async with listener(b"") as port:
        pass
    given = settings(http={"port": port}, mqtt={"port": 0})
    found = {each.check: each.finding async for each in doctor_machine.listeners(given)}
    assert found["http"] == f"nobody listens on 127.0.0.1:{port}"
    assert found["mqtt"] == found["mqtts"] == "takes any free port: not checked"


async def test_a_listener_on_all_addresses_is_asked_here() -> None:
    async with listener(b"HTTP/1.1 200 OK\r\n\r\n") as port:
        given = settings(http={"host": "0.0.0.0", "port": port})
        found = {each.check: each.finding async for each in doctor_machine.listeners(given)}
    assert found["http"] == f"ready on 0.0.0.0:{port}"


def test_where_settings_come_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctor_machine.source() == "readable: no file and the environment"
    file = tmp_path / "g.toml"
    file.touch()
    monkeypatch.setenv("GATEHOUSE_CONFIG", str(file))
    assert doctor_machine.source() == f"readable: {file} and the environment"
