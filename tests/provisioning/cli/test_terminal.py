"""Commands on a terminal: tables, progress, a question before something is gone."""

import asyncio
import fcntl
import json
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path

import pytest

from tests.conftest import ROOT, service_environment
from tests.devices import DEVICE, PRODUCT
from tests.provisioning.cli.conftest import Command

pytestmark = pytest.mark.server

STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


async def on_terminal(
    database_url: str, *args: str, typed: bytes = b"", out: int | None = None, **more: str
) -> tuple[int, str]:
    """Exit code and everything that appeared on the screen. `out`: where stdout goes instead."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "provisioning", *args, cwd=ROOT, stdin=theirs, stdout=theirs if out is None else out,
        stderr=theirs, env=os.environ | service_environment(database_url) | {"TERM": "xterm", "NO_COLOR": ""} | more,
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, typed)
    seen = b""
    try:
        while data := await asyncio.to_thread(os.read, ours, 65_536):
            seen += data
    except OSError:  # its side is closed
        pass
    finally:
        os.close(ours)
    return await asyncio.wait_for(process.wait(), 10), seen.decode().replace("\r\n", "\n")


@pytest.fixture
async def filled(command: Command) -> None:
    rows = (PRODUCT | {"name": "\x1b[2JPump [red]"}, DEVICE)
    await command("import", "-", stdin="\n".join(map(json.dumps, rows)).encode())


async def test_a_table_of_whole_keys(filled: None, database_url: str) -> None:
    code, screen = await on_terminal(database_url, "device", "list")
    lines = [re.split(r" {2,}", line.strip()) for line in STYLE.sub("", screen).splitlines() if line.strip()]
    assert code == 0
    assert lines[0][:2] == ["product", "key"]
    assert lines[2][:2] == ["pk1", "dk1"]


async def test_names_cannot_draw_on_the_terminal(filled: None, database_url: str) -> None:
    _, screen = await on_terminal(database_url, "product", "list")
    assert "\x1b[2J" not in screen
    assert r"\x1b[2JPump [red]" in STYLE.sub("", screen)


async def test_no_colours_where_nobody_wants_them(filled: None, database_url: str) -> None:
    _, screen = await on_terminal(database_url, "product", "list", NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", screen)


@pytest.mark.parametrize(("typed", "code", "left"), [(b"n\n", 1, 1), (b"\n", 1, 1), (b"y\n", 0, 0)])
@pytest.mark.usefixtures("filled")
async def test_what_is_deleted_is_asked_for(
    command: Command, database_url: str, typed: bytes, code: int, left: int
) -> None:
    done, screen = await on_terminal(database_url, "product", "delete", "pk1", "--cascade", typed=typed)
    assert done == code
    assert "Delete product pk1, its groups and all their devices? [y/N]" in screen
    assert len((await command("product", "list")).table) == left


async def test_yes_does_not_ask(filled: None, database_url: str) -> None:
    code, screen = await on_terminal(database_url, "device", "delete", "pk1", "dk1", "--yes")
    assert (code, screen) == (0, "deleted device pk1/dk1\n")


@pytest.mark.usefixtures("filled")
async def test_an_import_shows_how_far_it_is_and_what_failed(database_url: str, tmp_path: Path) -> None:
    rows = [f'{{"type":"product","protocol":"enos","productKey":"p{n}"}}\n' for n in range(1_000)]
    file = tmp_path / "f"
    file.write_text("".join([*rows, "nonsense\n"]))
    code, screen = await on_terminal(database_url, "import", str(file))
    text = STYLE.sub("", screen)
    assert code == 1
    assert "1,000 rows, " in text
    assert "line 1001: failed: the line is not JSON" in text
    assert re.search(r"created\s+updated\s+unchanged\s+failed", text)
    assert re.search(r"1,000\s+0\s+0\s+1\s", text)


async def test_a_progress_bar_keeps_away_from_the_pipe(database_url: str, tmp_path: Path) -> None:
    file, results = tmp_path / "f", tmp_path / "results"
    file.write_text(json.dumps(PRODUCT))
    with results.open("w") as out:
        code, screen = await on_terminal(database_url, "import", "--json", str(file), out=out.fileno())
    assert code == 0
    assert [json.loads(line).get("outcome") for line in results.read_text().splitlines()] == ["created", None]
    assert "outcome" not in screen
