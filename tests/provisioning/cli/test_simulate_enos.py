import asyncio
import json
import re

import pytest

from provisioning.app import Running
from tests.conftest import Process, Spawn, load_rows, service_environment, until
from tests.devices import GROUP, PRODUCT
from tests.provisioning.cli.conftest import Command

pytestmark = pytest.mark.server


@pytest.fixture
async def ports(service: Running) -> list[str]:
    """A service with a product and a group for simulated devices, as options."""
    await load_rows(service, PRODUCT, GROUP)
    found = service.ports
    return ["--http-port", str(found["http"]), "--mqtt-port", str(found["mqtt"]), "--group", "g1", "--product", "pk1"]


async def test_a_fleet_lives_through_both_roads_and_is_gone_again(spawned: Command, ports: list[str]) -> None:
    done = await spawned("simulate", "enos", "--count", "20", *ports, "--json")
    assert (done.row["devices"], done.row["wrong"], done.row["errors"]) == (20, 0, [])
    counts = {step: row["count"] for step, row in done.row["ms"].items()}
    assert counts == {"bootstrap": 10, "activation": 10, "login": 20, "post": 20}
    assert all(0 < row["p50"] <= row["p95"] <= row["p99"] <= row["max"] for row in done.row["ms"].values())
    assert re.search(r"^added 10 devices sim-\w+-… to product pk1$", done.err, re.MULTILINE)
    assert "deleted 20 simulated devices" in done.err
    assert (await spawned("device", "list")).out == ""


async def test_keep_and_mix_and_rate(spawned: Command, ports: list[str]) -> None:
    done = await spawned("simulate", "enos", "--count", "4", "--mix", "0.25", "--rate", "100", "--keep", *ports)
    assert re.search(r"^added device sim-\w+-0003 to product pk1$", done.err, re.MULTILINE)
    assert done.table[0][:2] == ["bootstrap", "3"]
    assert done.table[1][:2] == ["activation", "1"]
    kept = (await spawned("device", "list", "--json")).rows
    assert [row["state"] for row in kept] == ["activated"] * 4
    assert all((row["serial"] or row["key"]).startswith("sim-") for row in kept)


async def test_bootstrapped_devices_go_where_they_are_sent(spawned: Command, ports: list[str]) -> None:
    """Nobody says where MQTT is: the answer of the bootstrap does."""
    done = await spawned("simulate", "enos", "--count", "3", "--mix", "0", *ports[:2], "--group", "g1", "--json")
    assert (done.row["wrong"], done.row["ms"]["post"]["count"]) == (0, 3)


@pytest.mark.parametrize(
    ("wrong", "mix", "words"),
    [
        ("--group-password", "0", "bootstrap: HTTP 401: 35603 Unauthorized to access the resource"),
        ("--product-secret", "1", "activation: MqttConnectError: [code:134] Bad user name or password"),
    ],
)
async def test_a_wrong_answer_is_told_and_ends_with_1(
    spawned: Command, ports: list[str], wrong: str, mix: str, words: str
) -> None:
    done = await spawned("simulate", "enos", "--count", "6", "--mix", mix, wrong, "wrong", *ports, "--json", code=1)
    assert done.row["wrong"] == 6
    assert len(done.row["errors"]) == 5
    assert all(error.endswith(words) for error in done.row["errors"])
    assert (await spawned("device", "list")).out == ""


async def test_nobody_there(spawned: Command, ports: list[str]) -> None:
    nobody = ["--http-port", "1", "--mqtt-port", "1", *ports[4:]]
    done = await spawned("simulate", "enos", "--count", "300", *nobody, "--json", code=1)
    assert 50 <= done.row["devices"] < 300
    assert done.row["errors"][-1].startswith("stopped after ")
    few = await spawned("simulate", "enos", "--count", "6", "--mix", "0", *nobody, "--json", code=1)
    words = "cannot reach 127.0.0.1:1: a service must run there; `gatehouse serve` starts one"
    assert few.row["errors"] == [words]
    few = await spawned("simulate", "enos", "--count", "6", "--mix", "1", *nobody, "--json", code=1)
    assert few.row["errors"] == [words]


async def test_what_is_missing_in_the_registry_is_said(command: Command) -> None:
    missing = await command("simulate", "enos", code=1)
    assert missing.err == "gatehouse: there is no group demo-line: load the demo fleet, or name one with --group\n"
    missing = await command("simulate", "enos", "--mix", "1", code=1)
    assert missing.err == "gatehouse: there is no product demopump: load the demo fleet, or name one with --product\n"
    await command("product", "create", "demopump")
    await command("group", "create", "demo-line", "--product", "demopump")
    assert "does not let devices in" in (await command("simulate", "enos", code=1)).err
    assert "has no dynamic activation" in (await command("simulate", "enos", "--mix", "1", code=1)).err


async def test_ctrl_c_leaves_nothing_behind(
    spawn: Spawn, spawned: Command, service: Running, ports: list[str], database_url: str
) -> None:
    process: Process = await spawn(
        "simulate", "enos", "--count", "500", "--rate", "20", *ports, **service_environment(database_url)
    )
    await until(lambda: len(service.sessions), "a simulated session", 20)
    process.process.send_signal(2)
    assert await process.wait() == 130
    assert not any("Traceback" in line for line in process.errors), process.errors
    assert (await spawned("device", "list")).out == ""


async def test_a_service_that_answers_nonsense(spawned: Command, ports: list[str]) -> None:
    """Whatever comes back is a wrong answer, never a traceback."""
    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{",
               b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"ds":"x"}', b"nonsense"]  # fmt: skip

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers.pop() if answers else b"")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = str(server.sockets[0].getsockname()[1])
        options = ["--http-port", port, *ports[2:]]
        done = await spawned("simulate", "enos", "--count", "5", "--mix", "0", *options, "--json", code=1)
    assert done.row["wrong"] == 5
    assert "Traceback" not in done.err
    assert json.dumps(done.row)
