"""The README's tour, line by line, as a newcomer pastes it: with `make run` in one terminal and the rest in another."""

import asyncio
import json
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
FILE = re.compile(r"(?<![\w/.-])[\w-]+\.(?:ndjson|pem|key|json|txt|bin)\b")
"""A file that the tour makes in the folder where it is pasted."""


def tour_blocks() -> list[str]:
    section = SECTION.search((ROOT / "README.md").read_text("utf-8"))
    assert section, "README has no tour"
    return BLOCK.findall(section[1])


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


async def paste(block: str, cwd: Path, environment: dict[str, str]) -> tuple[int, str]:
    """The exit code and the output of a block, stopped at the first line that fails."""
    process = await asyncio.create_subprocess_exec(
        "bash", "-e", "-o", "pipefail", "-c", block, cwd=cwd, env=environment, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode or 0, output.decode()


async def is_ready(port: str) -> bool:
    try:
        async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{port}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


def log_lines(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text("utf-8").splitlines() if line.startswith("{")]


@pytest.mark.timeout(300)
async def test_tour(data_directory: Path, tmp_path: Path) -> None:
    first, *others = tour_blocks()
    assert first.strip() == "make run"
    assert len(others) >= 8, "the tour has lost its blocks"
    ports = {usual: free_port() for usual in ("8080", "11883", "8443", "18883")}
    path = os.environ["PATH"]
    if not (shutil.which("curl") and shutil.which("mosquitto_pub")):
        path = f"{path}:{STAND_INS}"  # after the real ones, so that each is used where it is there
    environment = os.environ | {
        "PATH": path,
        "PYTHON_OF_STANDINS": os.environ.get("PYTHON_OF_STANDINS", str(ROOT / ".venv-dev/bin/python")),
        "GATEHOUSE_DATA_DIR": str(data_directory),
        "GATEHOUSE_HTTP__PORT": ports["8080"],
        "GATEHOUSE_MQTT__PORT": ports["11883"],
        "GATEHOUSE_HTTPS__PORT": ports["8443"],
        "GATEHOUSE_MQTTS__PORT": ports["18883"],
    }
    log = tmp_path / "service.log"
    with log.open("wb") as file:
        service = await asyncio.create_subprocess_exec(
            "make", "run", cwd=ROOT, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=file, stderr=file,
            start_new_session=True,
        )  # fmt: skip
    try:
        printed = f"http://127.0.0.1:{ports['8080']}/2.4.0/bootstrap"
        try:
            await until(lambda: printed in log.read_text("utf-8"), "`make run` to print the tour", 180)
        except pytest.fail.Exception:
            pytest.fail(f"`make run` does not print the tour:\n{log.read_text()[-2000:]}")
        assert await is_ready(ports["8080"])
        outputs = []
        for block in others:
            text = re.sub(r"\b(8080|8443|11883|18883)\b", lambda found: ports[found[1]], block)
            text = FILE.sub(lambda found: str(tmp_path / found[0]), text)
            code, output = await paste(text, ROOT, environment)
            assert code == 0, f"this block of the tour fails:\n{block}\nIt says:\n{output}"
            outputs.append(output)
        whole = "\n".join(outputs)
        shown = (
            '"pk": "demopump"', "SN-0001", "20 devices in", ", 0 wrong", "mosquitto_pub", "refused\n", "1 created",
            "gatehouse_logins_total", '"Payload":"', "DEMOMETER1meter-1;12010126;", '{"code":1007,', "5 devices in",
            '{"registered":true}', "SENSOR0001 belongs to account ACME", "activated", "the download is whole",
            "SENSOR0001 is released", "Authentication failed",
            '"Key":"BbweqKa2yKiZAMh17cyCFw=="', '{"Message":"Request Successful"}', "3 devices in", "0002000089282259",
            "tls-1.pem: OK", "refused without a certificate", "is revoked",
            "refused when revoked", "certificate revoked", "revoked, says its CRL",
        )  # fmt: skip
        for expected in shown:
            assert expected in whole, f"the tour no longer shows {expected!r}:\n{whole}"
        assert '"deviceKey":"mine-1"' in (tmp_path / "fleet.ndjson").read_text().replace('": "', '":"')
        logins = [line for line in log_lines(log) if line["event"] == "mqtt.login" and line.get("device") == "tls-1"]
        assert [(line["outcome"], line.get("reason")) for line in logins] == [
            ("accepted", None), ("refused", "certificate_required"), ("refused", "certificate_required"),
        ]  # fmt: skip
        registrations = [line for line in log_lines(log) if line["event"] == "http.register"]
        assert [line["reason"] for line in registrations if line["device"] == "meter-1"] == ["", "activation_spent"]
        sensor = [line for line in log_lines(log) if line.get("device") == "SENSOR0001"]
        assert [line["outcome"] for line in sensor if line["event"] == "mqtt.login"] == ["accepted"]
        checked = [line["outcome"] for line in log_lines(log) if line["event"] == "http.checkin"]
        assert checked == ["accepted", "refused", *["accepted"] * 5]
        token = json.loads((tmp_path / "sensor.json").read_text("utf-8"))["token"]
        assert token not in log.read_text("utf-8"), "the log shows the token of a device"
        assert (tmp_path / "tls-1.key").stat().st_mode & 0o077 == 0, "others may read the key"
    finally:
        os.killpg(service.pid, signal.SIGINT)
        await asyncio.wait_for(service.wait(), 30)
    told = [line["event"] for line in log_lines(log) if line["event"] in {"ready", "stopping"}]
    assert told == ["ready", "stopping"]
