import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from provisioning import settings as settings_module
from provisioning.app import gatehouse
from provisioning.store.embedded import EmbeddedError, _Server, embedded_postgres
from tests.conftest import ROOT, Spawn, load_rows, new_directory, service_environment, until
from tests.devices import DEVICE, PRODUCT, device, login

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

BECOME = "import os, concurrent.futures.thread; os.setgroups([]); os.setgid(12_345); os.setuid(12_345)"


@pytest.fixture(scope="module")
async def cluster() -> AsyncIterator[Path]:
    """The files of a server that has been made before, and that does not wait for the disk: that may take minutes."""
    data = new_directory()
    async with embedded_postgres(data) as url:
        connection = await asyncpg.connect(url)
        await connection.execute("ALTER SYSTEM SET fsync = off")
        await connection.close()
    yield data
    shutil.rmtree(data)


@pytest.fixture
def used_directory(cluster: Path, data_directory: Path) -> Path:
    """A data directory with such files."""
    subprocess.run(["cp", "-a", cluster / "postgres", data_directory], check=True)
    return data_directory


class User:
    """Another process that uses the server until it is told to stop."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    @classmethod
    async def start(cls, data: Path, *, first: str = "") -> "User":
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            f"{first}\n{USER}",
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


async def test_blocks_of_one_process_share_it(used_directory: Path) -> None:
    async with embedded_postgres(used_directory) as one:
        async with embedded_postgres(used_directory) as two:
            assert one == two
        assert await answers(one)
    assert server(used_directory) is None


async def test_blocks_that_start_at_once_share_it(data_directory: Path) -> None:
    inside = asyncio.Barrier(3)

    async def use() -> str:
        async with embedded_postgres(data_directory) as url:
            await inside.wait()
            assert await answers(url)
        return url

    assert len(set(await asyncio.gather(*(use() for _ in range(3))))) == 1
    assert server(data_directory) is None


async def test_who_left_and_comes_again_finds_a_running_server(used_directory: Path) -> None:
    """While others use it the package keeps its handle of the server, even when they have stopped it since."""
    async with embedded_postgres(used_directory):
        other = await User.start(used_directory)
    await other.stop()
    async with embedded_postgres(used_directory) as url:
        assert await answers(url)


async def test_the_killed_do_not_keep_it_running(used_directory: Path) -> None:
    killed = await User.start(used_directory)
    await killed.kill()
    assert server(used_directory)
    async with embedded_postgres(used_directory) as url:  # the next start
        assert await answers(url)
        killed = await User.start(used_directory)
        await killed.kill()
    assert server(used_directory) is None  # the last stop


async def test_the_killed_count_as_dead_before_anybody_waits_for_them(used_directory: Path) -> None:
    async with embedded_postgres(used_directory):
        command = [sys.executable, "-c", USER, str(used_directory)]
        unreaped = subprocess.Popen(  # noqa: ASYNC220 - asyncio would wait for it
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert unreaped.stdin
        assert unreaped.stdout
        assert await asyncio.to_thread(unreaped.stdout.readline)
        unreaped.kill()
        await asyncio.to_thread(unreaped.stdout.read)  # its end
    assert server(used_directory) is None
    assert unreaped.returncode is None
    unreaped.communicate()


async def test_what_was_written_before_a_kill_is_there(used_directory: Path) -> None:
    async with embedded_postgres(used_directory) as url:
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        await connection.close()
        pid = server(used_directory)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: server(used_directory) is None, "the server's end")
    async with embedded_postgres(used_directory) as url:
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("SELECT answer FROM kept") == 42
        await connection.close()


async def kill(data: Path) -> int:
    pid = server(data)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: server(data) != pid, "the server's end", 30)
    return pid


async def test_it_is_started_again_when_it_dies(used_directory: Path) -> None:
    async with embedded_postgres(used_directory) as url:
        other = await User.start(used_directory)  # which starts it too: one is first
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        for _ in range(2):
            killed = await kill(used_directory)
            await until(lambda: answers(url), "another server", 30)
            assert server(used_directory) not in {None, killed}
        connection.terminate()
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("SELECT answer FROM kept") == 42
        await connection.close()
    assert server(used_directory)
    await other.stop()
    assert server(used_directory) is None


@pytest.mark.skipif(sys.platform != "linux", reason="a call of Linux")
async def test_it_is_started_again_by_the_first_process_of_a_container(used_directory: Path) -> None:
    """Orphans become its children, nobody waits for them, and the number of a dead server stays taken."""
    adopts_orphans = "import ctypes; assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER"
    user = await User.start(used_directory, first=adopts_orphans)
    killed = await kill(used_directory)
    os.kill(killed, 0)  # unreaped
    await until(lambda: answers(user.url), "another server", 30)
    await user.stop()
    assert not await answers(user.url)


async def test_it_is_not_made_anew_when_its_files_are_gone(used_directory: Path) -> None:
    one = _Server(used_directory)
    await asyncio.to_thread(one.join)
    try:
        await kill(used_directory)
        (used_directory / "postgres" / "PG_VERSION").rename(used_directory / "elsewhere")
        with pytest.raises(EmbeddedError, match="are gone"):
            await asyncio.to_thread(one.restart)
    finally:
        await asyncio.to_thread(one.leave)


async def test_a_block_ends_in_order_after_the_server_died(used_directory: Path) -> None:
    async with embedded_postgres(used_directory):
        await kill(used_directory)
    assert server(used_directory) is None


async def test_a_start_that_is_cancelled_leaves_nothing_running(data_directory: Path) -> None:
    async def use() -> None:
        async with embedded_postgres(data_directory):
            pytest.fail("it was not cancelled")

    task = asyncio.create_task(use())
    await until((data_directory / "postgres" / "PG_VERSION").exists, "the start")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server(data_directory) is None


async def test_a_number_that_is_somebody_elses_now_does_not_keep_it_out(used_directory: Path) -> None:
    one = _Server(used_directory)
    await asyncio.to_thread(one.join)
    await kill(used_directory)
    files = used_directory / "postgres"
    somebody = await asyncio.create_subprocess_exec("sleep", "60", user=files.stat().st_uid)
    try:
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            rest = (files / name).read_text().split("\n", 1)[1]
            (files / name).write_text(f"{somebody.pid}\n{rest}")
        assert not one.is_alive()
        await asyncio.to_thread(one.restart)
        assert one.is_alive()
        assert server(used_directory) != somebody.pid
    finally:
        await asyncio.to_thread(one.leave)
        somebody.kill()
        await somebody.wait()
    assert server(used_directory) is None


@pytest.mark.parametrize(
    "name",
    ["""it's "a" $HOME;`x`\\ &|<,b?c&d=%20+#""", "line\nfeed данные 数据", "/".join(["long" * 20] * 3)],
    ids=["hostile", "foreign", "long"],
)
async def test_a_path_may_be_any(data_directory: Path, name: str) -> None:
    data = data_directory / name
    async with embedded_postgres(data) as url:
        assert await answers(url)
        connection = await asyncpg.connect(url)
        assert (data / "postgres").samefile(await connection.fetchval("SHOW data_directory"))
        await connection.close()
    assert server(data) is None


async def test_a_link_that_was_cleaned_away_comes_back(data_directory: Path) -> None:
    one = _Server(data_directory / "with space")
    link = one.place()
    assert link.is_symlink()
    link.unlink()
    assert one.place() == link
    assert link.readlink() == data_directory / "with space" / "postgres"
    link.unlink()
    link.write_text("something else")
    try:
        with pytest.raises(EmbeddedError, match=f"{link} is not our link"):
            one.place()
    finally:
        link.unlink()


async def test_it_says_why_it_does_not_start(data_directory: Path) -> None:
    (data_directory / "postgres").mkdir()
    (data_directory / "postgres" / "PG_VERSION").write_text("9")
    with pytest.raises(EmbeddedError, match=r"does not start: .*9.*; see .*/postgres/log"):
        async with embedded_postgres(data_directory):
            pytest.fail("it started")


async def test_it_says_what_postgres_says(used_directory: Path) -> None:
    async with embedded_postgres(used_directory):
        pass
    with (used_directory / "postgres" / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(EmbeddedError, match=r"does not start: .*FATAL: .*postgresql\.conf.*; see .*/postgres/log"):
        async with embedded_postgres(used_directory):
            pytest.fail("it started")


@pytest.mark.parametrize("path", ["file", "file/below", "postgres"])
async def test_a_file_in_the_place_of_the_directory(data_directory: Path, path: str) -> None:
    (data_directory / "file").touch()
    (data_directory / "postgres").touch()
    data = data_directory if path == "postgres" else data_directory / path
    with pytest.raises(
        EmbeddedError, match=f"the data directory {data} cannot be used: .*GATEHOUSE_DATA_DIR"
    ) as caught:
        async with embedded_postgres(data):
            pytest.fail("it started")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be others")
@pytest.mark.parametrize("ours", ["nothing", "all but postgres"])
async def test_a_directory_of_another_user(data_directory: Path, ours: str) -> None:
    os.chmod(data_directory, 0o755)  # noqa: PTH101 - it blocks no longer than the rest
    if ours != "nothing":
        os.chown(data_directory, 12_345, 12_345)
        (data_directory / "postgres").mkdir()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", USER.replace("asyncio.run", f"{BECOME}\nasyncio.run"), str(data_directory), cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    last = errors.decode().splitlines()[-1]
    assert last.startswith("provisioning.store.embedded.EmbeddedError: ")
    assert str(data_directory) in last
    assert ("Permission denied" if ours == "nothing" else "belongs to another user") in last


async def test_a_service_outlives_its_server(used_directory: Path) -> None:
    settings = settings_module.load(data_dir=used_directory, http={"port": 0}, mqtt={"port": 0}, log={"format": "json"})
    async with gatehouse(settings) as running:
        await load_rows(running, PRODUCT, DEVICE)
        await kill(used_directory)

        async def is_ready() -> bool:
            address = f"http://127.0.0.1:{running.http.port}/readyz"
            async with aiohttp.ClientSession() as client, client.get(address) as answer:
                return answer.status == 200

        await until(is_ready, "a service that is ready again", 30)
        async with device(running.mqtt.port, login()):
            pass


async def test_a_service_ends_in_order_after_its_server_died(used_directory: Path, spawn: Spawn) -> None:
    environment = service_environment("", GATEHOUSE_DATA_DIR=str(used_directory))
    del environment["GATEHOUSE_DATABASE__URL"]
    process = await spawn("serve", **environment)
    await process.ready()
    await kill(used_directory)
    back = ("accepted", None)

    def outcomes() -> list[tuple[str, str | None]]:
        return [(line["outcome"], line.get("reason")) for line in process.events("database.embedded")]

    await until(lambda: back in outcomes(), "another server", 30)
    assert outcomes()[0] == ("failed", "gone")
    assert outcomes().count(back) == 1
    await kill(used_directory)
    process.process.terminate()
    assert await process.wait() == 0, process.errors
    assert not [line for line in process.errors if "Traceback" in line or "unexpected" in line]
    assert all(line.startswith("{") for line in process.lines), process.lines
    assert server(used_directory) is None


@pytest.mark.parametrize("file", ["data", "postgres"])
async def test_a_service_says_in_one_line_that_its_directory_is_none(
    data_directory: Path, spawn: Spawn, file: str
) -> None:
    (data_directory / file).touch()
    data = data_directory / "data" if file == "data" else data_directory
    environment = service_environment("", GATEHOUSE_DATA_DIR=str(data))
    del environment["GATEHOUSE_DATABASE__URL"]
    process = await spawn("serve", **environment)
    assert await process.wait() == 2
    assert not process.lines
    assert len(process.errors) == 1
    assert str(data) in process.errors[0]
