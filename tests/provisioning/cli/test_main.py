"""`provisioning.cli` itself: the whole command as a process."""

import asyncio
import os
import sys

import pytest

from tests.conftest import ROOT, Spawn, service_environment, until
from tests.devices import PRODUCT
from tests.provisioning.cli.conftest import Command

pytestmark = pytest.mark.server

HEAVY = ("asyncpg", "aiohttp", "amqtt", "pydantic", "cryptography", "uvloop")


async def test_help_is_quick_because_nothing_heavy_is_loaded() -> None:
    code = f"import sys, provisioning.cli; print([name for name in {HEAVY} if name in sys.modules])"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=ROOT, stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    out, _ = await process.communicate()
    assert out.decode().strip() == "[]"


@pytest.mark.parametrize("args", [["nonsense"], ["device", "nonsense"], ["product", "show"], ["serve", "--nonsense"]])
async def test_wrong_usage_ends_with_2(spawn: Spawn, args: list[str]) -> None:
    process = await spawn(*args)
    assert await process.wait() == 2
    assert process.lines == []


async def test_no_colour_where_nobody_wants_it(spawn: Spawn) -> None:
    process = await spawn("--help", NO_COLOR="1", FORCE_COLOR="")
    assert await process.wait() == 0
    assert not any("\x1b[3" in line for line in process.lines)


async def test_a_reader_that_has_seen_enough(command: Command, database_url: str) -> None:
    """`gatehouse device list | head -1`: the pipe breaks, and nobody makes a noise about it."""
    await command("product", "create", "pk1")
    rows = "".join(
        f'{{"type":"device","protocol":"enos","productKey":"pk1","deviceKey":"d{n}"}}\n' for n in range(3_000)
    )
    await command("import", "-", stdin=rows.encode())
    for args in (["device", "list", "--json"], ["export", "-"], ["import", "/dev/stdin", "--json", "--dry-run"]):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "provisioning", *args, cwd=ROOT, env=os.environ | service_environment(database_url),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(rows.encode())
        process.stdin.close()
        assert await process.stdout.readline()
        process.stdout._transport.close()  # type: ignore[attr-defined]
        errors = await process.stderr.read()
        assert await process.wait() == 1, args
        assert errors == b"", args


async def test_ctrl_c_while_it_reads_the_terminal(database_url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "provisioning", "import", "-", "--json", cwd=ROOT, stdin=asyncio.subprocess.PIPE,
        env=os.environ | service_environment(database_url), stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(f"{PRODUCT}\n".encode() * 2)
    await process.stdin.drain()
    await _is_reading(process.pid)
    process.send_signal(2)
    assert await asyncio.wait_for(process.wait(), 10) == 130
    assert await process.stderr.read() == b""
    process.stdin.close()


async def _is_reading(pid: int) -> None:
    """Wait until the process sleeps in a read of its stdin."""
    where = f"/proc/{pid}/syscall"
    if not os.access(where, os.R_OK):
        pytest.skip("this system does not tell what a process waits for")

    def reads() -> bool:
        with open(where) as file:  # noqa: PTH123 - not a file on a disk
            return file.read().startswith("0 0x0 ")

    await until(reads, "the command reads", 20)
