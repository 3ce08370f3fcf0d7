"""The README's tour, line by line, as a newcomer pastes it: with `make run` in one terminal and the rest in another."""

import asyncio
import os
import re
import shutil
import signal
import socket
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import ROOT, until

pytestmark = [pytest.mark.server, pytest.mark.acceptance]

STAND_INS = Path(__file__).parent / "standins"
SECTION = re.compile(r"^## Five-minute tour$(.*?)^## ", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def tour_blocks() -> list[str]:
    section = SECTION.search((ROOT / "README.md").read_text("utf-8"))
    assert section, "README has no tour"
    return BLOCK.findall(section[1])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def paste(block: str, cwd: Path, environment: dict[str, str]) -> tuple[int, str]:
    """The exit code and the output of a block, stopped at the first line that fails."""
    process = await asyncio.create_subprocess_exec(
        "bash", "-e", "-o", "pipefail", "-c", block, cwd=cwd, env=environment, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode or 0, output.decode()


async def is_ready(port: int) -> bool:
    try:
        async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{port}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


@pytest.mark.timeout(240)
async def test_tour(data_directory: Path, tmp_path: Path) -> None:
    first, *others = tour_blocks()
    assert first.strip() == "make run"
    assert len(others) >= 5, "the tour has lost its blocks"
    http, mqtt = free_port(), free_port()
    path = os.environ["PATH"]
    if not (shutil.which("curl") and shutil.which("mosquitto_pub")):
        path = f"{path}:{STAND_INS}"  # after the real ones, so that each is used where it is there
    environment = os.environ | {
        "PATH": path,
        "PYTHON_OF_STANDINS": os.environ.get("PYTHON_OF_STANDINS", str(ROOT / ".venv-dev/bin/python")),
        "GATEHOUSE_DATA_DIR": str(data_directory),
        "GATEHOUSE_HTTP__PORT": str(http),
        "GATEHOUSE_MQTT__PORT": str(mqtt),
    }
    log = tmp_path / "service.log"
    with log.open("wb") as file:
        service = await asyncio.create_subprocess_exec(
            "make", "run", cwd=ROOT, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=file, stderr=file,
            start_new_session=True,
        )  # fmt: skip
    try:
        await until(lambda: is_ready(http), f"`make run` to be ready; see {log.read_text()[-2000:]}", 180)
        said = log.read_text("utf-8")
        assert f"http://127.0.0.1:{http}/2.4.0/bootstrap" in said, "make run does not print the tour"
        outputs = []
        for block in others:
            text = block.replace("127.0.0.1:8080", f"127.0.0.1:{http}")
            text = text.replace("fleet.ndjson", str(tmp_path / "fleet.ndjson"))
            code, output = await paste(text, ROOT, environment)
            assert code == 0, f"this block of the tour fails:\n{block}\nIt says:\n{output}"
            outputs.append(output)
        whole = "\n".join(outputs)
        shown = ('"pk": "demopump"', "SN-0001", "mosquitto_pub", "refused", "created", "gatehouse_logins_total")
        for expected in shown:
            assert expected in whole, f"the tour no longer shows {expected!r}:\n{whole}"
        assert '"deviceKey":"mine-1"' in (tmp_path / "fleet.ndjson").read_text().replace('": "', '":"')
    finally:
        os.killpg(service.pid, signal.SIGINT)
        code = await asyncio.wait_for(service.wait(), 30)
    assert '"event": "ready"' in log.read_text("utf-8")
