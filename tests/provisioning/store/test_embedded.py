import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import asyncpg
import pytest

from provisioning.store.embedded import EmbeddedError, _runtime_directory, embedded_postgres
from tests.conftest import ROOT, until

pytestmark = pytest.mark.server

USER = """
import asyncio, sys
from pathlib import Path
from provisioning.store.embedded import embedded_postgres

async def main():
    async with embedded_postgres(Path(sys.argv[1])) as url:
        print(url, flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


class User:
    """Another process that uses the server until it is told to stop."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    @classmethod
    async def start(cls, data: Path) -> "User":
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            USER,
            str(data),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        url = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip()
        assert url
        return cls(process, url)

    async def stop(self) -> None:
        await asyncio.wait_for(self.process.communicate(b"\n"), 30)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.communicate()


async def answers(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, timeout=5)
    except (OSError, asyncpg.PostgresError):
        return False
    await connection.close()
    return True


def server(data: Path) -> int | None:
    """The process id of the server of a data directory; None: there is none."""
    try:
        pid = int((data / "postgres" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, 0)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return pid


async def test_it_runs_as_long_as_somebody_uses_it(data_directory: Path) -> None:
    async with embedded_postgres(data_directory) as url:
        assert await answers(url)
        other = await User.start(data_directory)
        assert other.url == url
        assert server(data_directory)
    assert await answers(url)
    await other.stop()
    assert server(data_directory) is None
    async with embedded_postgres(data_directory) as again:
        assert await answers(again)
    assert server(data_directory) is None


async def test_blocks_of_one_process_share_it(data_directory: Path) -> None:
    async with embedded_postgres(data_directory) as one:
        async with embedded_postgres(data_directory) as two:
            assert one == two
        assert await answers(one)
    assert server(data_directory) is None


async def test_blocks_that_start_at_once_share_it(data_directory: Path) -> None:
    inside = asyncio.Barrier(3)

    async def use() -> str:
        async with embedded_postgres(data_directory) as url:
            await inside.wait()
            assert await answers(url)
        return url

    assert len(set(await asyncio.gather(*(use() for _ in range(3))))) == 1
    assert server(data_directory) is None


async def test_who_left_and_comes_again_finds_a_running_server(data_directory: Path) -> None:
    """While others use it the package keeps its handle of the server, even when they have stopped it since."""
    async with embedded_postgres(data_directory):
        other = await User.start(data_directory)
    await other.stop()
    async with embedded_postgres(data_directory) as url:
        assert await answers(url)


async def test_the_killed_do_not_keep_it_running(data_directory: Path) -> None:
    killed = await User.start(data_directory)
    await killed.kill()
    assert server(data_directory)
    async with embedded_postgres(data_directory) as url:  # the next start
        assert await answers(url)
        killed = await User.start(data_directory)
        await killed.kill()
        pids = json.loads((data_directory / "postgres" / ".handle_pids.json").read_text())
        assert killed.process.pid in pids
    assert server(data_directory) is None  # the last stop


async def test_what_was_written_before_a_kill_is_there(data_directory: Path) -> None:
    async with embedded_postgres(data_directory) as url:
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        await connection.close()
        pid = server(data_directory)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: server(data_directory) is None, "the server's end")
    async with embedded_postgres(data_directory) as url:
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("SELECT answer FROM kept") == 42
        await connection.close()


async def test_it_says_why_it_does_not_start(data_directory: Path) -> None:
    (data_directory / "postgres").mkdir()
    (data_directory / "postgres" / "PG_VERSION").write_text("9")
    with pytest.raises(EmbeddedError, match=r"does not start: .*9.*; see .*/postgres/log"):
        async with embedded_postgres(data_directory):
            pytest.fail("it started")
    assert "XDG_RUNTIME_DIR" not in os.environ or "gatehouse" not in os.environ["XDG_RUNTIME_DIR"]


def test_the_runtime_directory_is_ours_alone(data_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(data_directory))
    directory = _runtime_directory(Path("/some/data"))
    assert directory.stat().st_mode & 0o777 == 0o700
    assert _runtime_directory(Path("/some/data")) == directory
    assert _runtime_directory(Path("/other/data")) != directory
    if os.getuid() == 0:
        os.chown(directory, 12345, 12345)
        with pytest.raises(EmbeddedError, match="belongs to somebody else"):
            _runtime_directory(Path("/some/data"))
