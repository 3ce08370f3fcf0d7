import signal
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import ROOT, Spawn, service_environment
from tests.databases import fresh_database
from tests.provisioning.cli.conftest import Command

pytestmark = pytest.mark.server

DEMO = str(ROOT / "config" / "demo.ndjson")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_says_when_it_is_ready_and_leaves_when_it_is_told(
    spawn: Spawn, database_url: str, number: int
) -> None:
    process = await spawn("serve", **service_environment(database_url))
    ready = await process.ready()
    assert ready["pid"] == process.process.pid
    async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{ready['http']}/readyz") as answer:
        assert answer.status == 200
    process.process.send_signal(number)
    assert await process.wait(10) == 0
    assert process.errors == []
    assert process.events("stopping")


async def test_the_demo_fleet_brings_the_tour(spawn: Spawn, database_url: str) -> None:
    process = await spawn("serve", "--demo", DEMO, **service_environment(database_url))
    ready = await process.ready()
    process.process.terminate()
    assert await process.wait(10) == 0
    text = "\n".join(process.errors)
    assert f"http://127.0.0.1:{ready['http']}/2.4.0/bootstrap" in text
    assert f"simulate enos --count 5 --http-port {ready['http']} --mqtt-port {ready['mqtt']}" in text
    assert f"mosquitto_pub -h 127.0.0.1 -p {ready['mqtt']} -i 'pump-001|securemode=2" in text


async def refused(spawn: Spawn, *args: str, **environment: str) -> str:
    """The one line on stderr with which it ends."""
    process = await spawn("serve", *args, **environment)
    assert await process.wait() == 2, process.errors
    (line,) = process.errors
    assert not process.events("ready")
    return line


@pytest.mark.parametrize("protocol", ["HTTP", "MQTT"])
async def test_a_port_that_is_taken(spawn: Spawn, database_url: str, protocol: str) -> None:
    first = await spawn("serve", **service_environment(database_url))
    port = (await first.ready())[protocol.lower()]
    line = await refused(spawn, **service_environment(database_url, **{f"GATEHOUSE_{protocol}__PORT": str(port)}))
    assert line == (f"gatehouse: {protocol.lower()}: cannot listen on 127.0.0.1:{port}: the address is in use; "
                    f"another port by GATEHOUSE_{protocol}__PORT")  # fmt: skip


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("GATEHOUSE_HTTP__PORT", "many", "GATEHOUSE_HTTP__PORT"),
        ("GATEHOUSE_HTTP__PROT", "8080", "GATEHOUSE_HTTP__PROT is not a setting"),
        ("GATEHOUSE_MASTER_KEY", "short", "master key"),
        ("GATEHOUSE_DATABASE__URL", "postgresql://127.0.0.1:1/nothing", "database"),
        ("GATEHOUSE_DEMO", "/nowhere", "demo: cannot read /nowhere: no such file or directory"),
        ("GATEHOUSE_DEMO", "/bin/sh", "demo: cannot read /bin/sh: it is not UTF-8"),
        ("GATEHOUSE_MQTT__HOST", "192.0.2.1", "192.0.2.1:0: cannot assign requested address"),
    ],
)
async def test_a_wrong_setting(spawn: Spawn, database_url: str, variable: str, value: str, words: str) -> None:
    assert words in await refused(spawn, **service_environment(database_url, **{variable: value}))


async def test_the_demo_fleet_stays_on_this_machine(spawn: Spawn, database_url: str) -> None:
    line = await refused(spawn, "--demo", DEMO, **service_environment(database_url, GATEHOUSE_MQTT__HOST="0.0.0.0"))
    assert "mqtt.host would leave this machine, and the secrets of the demo fleet are public" in line


async def test_migrate_says_what_it_applied(postgres: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fresh_database(postgres, "template1") as empty:
        monkeypatch.setenv("GATEHOUSE_DATABASE__URL", empty)
        assert (await command("migrate")).out.startswith("applied 0001 registry\n")
        assert (await command("migrate")).out == "nothing to apply\n"
        assert (await command("migrate", "--json")).row == {"applied": []}


async def test_migrate_knows_its_master_key(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEHOUSE_MASTER_KEY", "ff" * 32)
    assert (await command("migrate", code=2)).err.startswith("gatehouse: database: master key: ")


async def test_without_a_url_the_database_is_in_the_data_directory(spawn: Spawn, data_directory: Path) -> None:
    environment = {"GATEHOUSE_DATA_DIR": str(data_directory), "GATEHOUSE_LOG__FORMAT": "json"}
    process = await spawn("product", "create", "pk1", **environment)
    assert await process.wait() == 0, process.errors
    assert process.errors == [f"gatehouse: makes a new database in {data_directory}"]
    process = await spawn("product", "list", **environment)
    assert await process.wait() == 0, process.errors
    assert process.errors == []
    assert process.lines == ["pk1\t-\tno\tno\tno\t0\tno"]


@pytest.mark.parametrize(
    "args",
    [
        ("device", "list"),
        ("product", "show", "pk1"),
        ("export", "-"),
        ("import", "--dry-run", "-"),
        ("ca", "list"),
        ("simulate", "enos"),
    ],
)
async def test_who_only_asks_makes_no_database(spawn: Spawn, data_directory: Path, args: tuple[str, ...]) -> None:
    process = await spawn(*args, cwd=data_directory, PYTHONPATH=str(ROOT), GATEHOUSE_DATA_DIR="data")
    assert await process.wait() == 2, process.lines
    (line,) = process.errors
    assert line.startswith(f"gatehouse: there is no database in {data_directory / 'data'}: ")
    assert "GATEHOUSE_DATA_DIR" in line
    assert not (data_directory / "data").exists()


@pytest.mark.parametrize("args", [("migrate",), ("import", "-"), ("ca", "create", "own"), ("serve",)])
async def test_who_makes_a_database_says_where(spawn: Spawn, data_directory: Path, args: tuple[str, ...]) -> None:
    ports = {f"GATEHOUSE_{name}__PORT": "0" for name in ("HTTP", "HTTPS", "MQTT", "MQTTS")}
    process = await spawn(*args, GATEHOUSE_DATA_DIR=str(data_directory), GATEHOUSE_LOG__FORMAT="json", **ports)
    if args == ("serve",):
        await process.ready()
        process.process.terminate()
    assert await process.wait() == 0, process.errors
    assert process.errors == [f"gatehouse: makes a new database in {data_directory}"]
