import shlex
from pathlib import Path

import pytest

from provisioning.cli.tour import program, tour
from tests.conftest import ROOT, Serve, load_rows
from tests.registrants import PRODUCT, PRODUCT_ID


@pytest.mark.parametrize(
    ("argv", "typed"),
    [
        ("gatehouse", "gatehouse"),
        (".venv/bin/gatehouse", ".venv/bin/gatehouse"),
        (str(Path.cwd() / ".venv/bin/gatehouse"), ".venv/bin/gatehouse"),
        ("/usr/bin/gatehouse", "/usr/bin/gatehouse"),
    ],
)
def test_the_program_as_one_would_type_it(monkeypatch: pytest.MonkeyPatch, argv: str, typed: str) -> None:
    monkeypatch.setattr("sys.argv", [argv])
    assert program() == typed


def test_the_program_carries_what_leads_to_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["gatehouse"])
    monkeypatch.setenv("GATEHOUSE_DATA_DIR", "/my data")
    monkeypatch.setenv("GATEHOUSE_MASTER_KEY", "00" * 32)
    assert program() == "env 'GATEHOUSE_DATA_DIR=/my data' gatehouse"


@pytest.mark.server
async def test_commands_that_a_shell_reads(serve: Serve) -> None:
    running = await serve(demo=ROOT / "config" / "demo.ndjson")
    lines = (await tour(running)).splitlines()
    commands = [
        shlex.split(line, comments=True) for line in lines if line.startswith("  ") and not line.startswith("  #")
    ]
    assert [words[0] for words in commands if words[0] in {"curl", "mosquitto_pub", "eval"}] == [
        "curl", "mosquitto_pub", "eval", "curl", "curl",
    ]  # fmt: skip
    assert all(words[-1] == "echo" for words in commands if words[0] == "curl"), "the answer has no newline"
    assert len(commands) == 10
    assert all(len(line) == len(line.rstrip()) for line in lines)
    at = f"--http-port {running.http.port} --mqtt-port {running.mqtt.port}"
    assert any(line.endswith(f"simulate tencent --count 5 {at}") for line in lines)
    at = f"--http-port {running.http.port} --mqtts-port {running.mqtts.port}"
    assert any(line.endswith(f"simulate ioto --product demo-sensor-token --count 5 {at}") for line in lines)
    assert any(line.endswith(f"simulate ublox --count 3 --http-port {running.http.port}") for line in lines)
    url = f"http://127.0.0.1:{running.http.port}"
    assert any(line.endswith(f"{url}/api/device/register; echo") for line in lines)
    assert any(f"sign tencent --product DEMOMETER1 --device meter-1 --url {url} |" in line for line in lines)


@pytest.mark.server
async def test_each_protocol_has_its_own_commands(serve: Serve) -> None:
    running = await serve()
    await load_rows(running, PRODUCT | {"demo": True})
    text = await tour(running)
    assert f"simulate tencent --count 5 --product {PRODUCT_ID}" in text
    assert "enos" not in text


@pytest.mark.server
async def test_no_tour_without_the_demo_fleet(serve: Serve) -> None:
    assert await tour(await serve()) == ""
