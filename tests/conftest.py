"""What the tests stand on: a real PostgreSQL, a database for each test, a service in this process or in its own.

Nothing here sleeps: `until` waits for a condition, and says what it waited for when it does not come.
"""

import asyncio
import atexit
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import hypothesis
import pytest

from provisioning import settings as settings_module
from provisioning.app import Running, gatehouse
from provisioning.core.importing import Summary, import_rows
from provisioning.settings import Settings
from provisioning.store.database import Database, open_database
from provisioning.store.embedded import embedded_postgres
from provisioning.store.sealing import Sealer
from tests.databases import Databases

# The same examples everywhere and every time; `make fast` takes fewer of them.
hypothesis.settings.register_profile("gatehouse", deadline=None, derandomize=True)
hypothesis.settings.register_profile("fast", parent=hypothesis.settings.get_profile("gatehouse"), max_examples=6)
hypothesis.settings.load_profile("gatehouse")

ROOT = Path(__file__).resolve().parent.parent
MASTER_KEY = bytes(range(32))
SHARED_MEMORY = Path("/dev/shm")
ROOM = 2**32


def new_directory() -> Path:
    """A new directory with a short path, in memory where there is room: a busy disk makes a server wait for minutes."""
    roomy = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free >= ROOM
    return Path(tempfile.mkdtemp(prefix="gh-", dir=SHARED_MEMORY if roomy else None))


DATA = new_directory()
"""Data directory of the services of this run: their databases are elsewhere, their server certificates here."""
atexit.register(shutil.rmtree, DATA, ignore_errors=True)


async def until(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """Wait until `condition` (plain or asynchronous) is true, and return its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:.0f} s in vain for: {what}")
        await asyncio.sleep(0.01)


LONGEST_FILES = ("test_tour.py", "test_embedded.py", "test_http.py")
HEAVY_FILE = re.compile(r"^pytestmark = .*mark\.(server|slow)", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`make fast` need not even read the files in which no test is for it."""
    if "not server" not in config.option.markexpr or not collection_path.name.startswith("test_"):
        return None
    return True if HEAVY_FILE.search(collection_path.read_text("utf-8")) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever uses the database is a test that needs a server. The longest files begin: no worker waits for them."""
    for item in items:
        if "postgres" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.server)
    items.sort(key=lambda item: item.path.name not in LONGEST_FILES)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("GATEHOUSE_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def short_directory() -> Iterator[Path]:
    """A directory with a short path: the name of a UNIX socket has room for a hundred characters."""
    path = new_directory()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def data_directory() -> Iterator[Path]:
    """As `short_directory`, for one test."""
    path = new_directory()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def sealer() -> Sealer:
    return Sealer(MASTER_KEY)


@pytest.fixture(scope="session")
async def postgres(short_directory: Path) -> AsyncIterator[str]:
    """URL of a server."""
    async with embedded_postgres(short_directory) as url:
        connection = await asyncpg.connect(url)
        for setting in ("fsync", "full_page_writes"):  # what a crash of the machine would need; no test has one
            await connection.execute(f"ALTER SYSTEM SET {setting} = off")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.close()
        yield url


@pytest.fixture(scope="session")
async def databases(postgres: str, sealer: Sealer) -> Databases:
    made = Databases(postgres)
    await made.make_template(sealer)
    return made


@pytest.fixture
async def database_url(databases: Databases) -> AsyncIterator[str]:
    """URL of a database with the schema of this release, and nothing in it."""
    async with databases.migrated() as url:
        yield url


@pytest.fixture
async def database(database_url: str, sealer: Sealer) -> AsyncIterator[Database]:
    async with open_database(database_url, sealer, timeout=10) as opened:
        yield opened


def settings_for(database_url: str, **overrides: Any) -> Settings:
    """Settings of a service on free ports; `overrides` are sections or values, as in the TOML file."""
    base: dict[str, Any] = {
        "database": {"url": database_url},
        "master_key": MASTER_KEY.hex(),
        "data_dir": DATA,
        "http": {"port": 0},
        "https": {"port": 0},
        "mqtt": {"port": 0},
        "mqtts": {"port": 0},
        "log": {"format": "json"},
    }
    for name, value in overrides.items():
        base[name] = {**base[name], **value} if name in base and isinstance(value, dict) else value
    return settings_module.load(**base)


Serve = Callable[..., Awaitable[Running]]


@pytest.fixture
async def serve(database_url: str) -> AsyncIterator[Serve]:
    """Start services on the test's database: `await serve(mqtt={"connect_timeout": 0.3})`. Stopped with the test."""
    async with AsyncExitStack() as stack:

        async def start(**overrides: Any) -> Running:
            return await stack.enter_async_context(gatehouse(settings_for(database_url, **overrides)))

        yield start


@pytest.fixture
async def service(serve: Serve) -> Running:
    """A service with the settings of everybody."""
    return await serve()


async def load_rows(running: Running, *rows: dict[str, object]) -> Summary:
    """Import rows; each must get in."""
    readers = {protocol.name: protocol.read_row for protocol in running.protocols}
    summary = await import_rows(running.database, [json.dumps(row) for row in rows], readers)
    assert not summary.failed, summary.first_failure
    return summary


class Process:
    """A `gatehouse` command in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._readers = [
            asyncio.create_task(self._read(process.stdout, self.lines)),
            asyncio.create_task(self._read(process.stderr, self.errors)),
        ]

    async def _read(self, stream: asyncio.StreamReader | None, lines: list[str]) -> None:
        assert stream is not None
        async for line in stream:
            lines.append(line.decode().rstrip("\n"))

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The log lines so far, or those of one event."""
        found = [json.loads(line) for line in self.lines if line.startswith("{")]
        return [line for line in found if name is None or line.get("event") == name]

    async def ready(self) -> dict[str, Any]:
        """The line that names the ports."""

        def line() -> dict[str, Any] | None:
            assert self.process.returncode is None, f"it ended: {self.errors[-5:]} {self.lines[-5:]}"
            return next(iter(self.events("ready")), None)

        found: dict[str, Any] = await until(line, "the ready line", 30)
        return found

    async def wait(self, seconds: float = 30) -> int:
        code = await asyncio.wait_for(self.process.wait(), seconds)
        await asyncio.gather(*self._readers)
        return code

    async def kill(self) -> None:
        """As `kill -9`."""
        if self.process.returncode is None:
            self.process.kill()
        await self.wait()


Spawn = Callable[..., Awaitable[Process]]


@pytest.fixture
async def spawn() -> AsyncIterator[Spawn]:
    """Start `gatehouse ARGS` with additional environment variables. Killed when the test ends."""
    started: list[Process] = []

    async def start(*args: str, cwd: Path = ROOT, **environment: str) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "provisioning", *args, cwd=cwd,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            limit=2**20,
        )  # fmt: skip
        started.append(Process(process))
        return started[-1]

    yield start
    for process in started:
        await process.kill()
        sys.stdout.write("\n".join((*process.lines[-40:], *process.errors[-40:], "")))  # shown when a test has failed


def service_environment(database_url: str, **more: str) -> dict[str, str]:
    """The environment of a spawned command that works on the test's database."""
    return {
        "GATEHOUSE_DATABASE__URL": database_url,
        "GATEHOUSE_MASTER_KEY": MASTER_KEY.hex(),
        "GATEHOUSE_DATA_DIR": str(DATA),
        "GATEHOUSE_HTTP__PORT": "0",
        "GATEHOUSE_MQTT__PORT": "0",
        "GATEHOUSE_LOG__FORMAT": "json",
    } | more
