import asyncio
import json
from pathlib import Path

import pytest

from provisioning.app import Running
from provisioning.model.lifecycle import State
from provisioning.model.registry import Device
from provisioning.store import devices
from tests import peers
from tests.conftest import Process, Serve, Spawn, load_rows, service_environment, until
from tests.provisioning.cli.conftest import Command

pytestmark = pytest.mark.server

TOKEN = "PRODTOKEN1"
PRODUCT: dict[str, object] = {"type": "product", "protocol": "ioto", "productToken": TOKEN}


async def fleet_of(running: Running) -> list[Device]:
    async with running.database.read() as tx:
        return await devices.page(tx, devices.Filter(protocol="ioto"), 0, 100)


async def ports_of(running: Running) -> list[str]:
    """Where a service is, and the product of simulated devices, as options."""
    await load_rows(running, PRODUCT)
    return ["--product", TOKEN, "--http-port", str(running.ports["http"])]


async def test_agents_live_from_registration_to_checkin_and_are_gone_again(spawned: Command, service: Running) -> None:
    ports = await ports_of(service)
    done = await spawned("simulate", "ioto", "--count", "6", *ports, "--json")
    assert (done.row["devices"], done.row["wrong"], done.row["errors"]) == (6, 0, [])
    counts = {step: row["count"] for step, row in done.row["ms"].items()}
    assert counts == {"register": 6, "token": 6, "get_certs": 6, "connect": 6, "checkin": 6}
    assert all(0 < row["p50"] <= row["p95"] <= row["p99"] <= row["max"] for row in done.row["ms"].values())
    assert "deleted 6 simulated devices" in done.err
    assert await fleet_of(service) == []
    await until(lambda: not service.broker._sessions, "their sessions to be gone")


async def test_keep_and_another_way_to_the_service(spawned: Command, serve: Serve) -> None:
    """The name in the answer leads nowhere here; the server has to show it all the same."""
    running = await serve(tls={"names": ["mqtt.example.org"]}, ioto={"mqtt_host": "mqtt.example.org"})
    mqtts = ("--host", "127.0.0.1", "--mqtts-port", str(running.ports["mqtts"]))
    done = await spawned("simulate", "ioto", "--count", "2", "--keep", *mqtts, *await ports_of(running))
    assert [row[:2] for row in done.table[:5]] == [
        [step, "2"] for step in ("register", "token", "get_certs", "connect", "checkin")
    ]
    kept = await fleet_of(running)
    assert [(device.key[:4], device.state) for device in kept] == [("SIM-", State.ACTIVATED)] * 2


async def test_what_is_wrong_is_told(command: Command, spawned: Command, service: Running, tmp_path: Path) -> None:
    ports = await ports_of(service)
    missing = await command("simulate", "ioto", "--product", "OTHER", *ports[2:], code=1)
    assert missing.err == "gatehouse: there is no such product: load the demo fleet, or name one with --product\n"
    nobody = await spawned("simulate", "ioto", "--product", TOKEN, "--http-port", "1", "--count", "3", "--json", code=1)
    assert nobody.row["errors"] == ["cannot reach 127.0.0.1:1: a service must run there; `gatehouse serve` starts one"]
    other = tmp_path / "other.pem"
    other.write_bytes(peers.AUTHORITY.pem)
    done = await spawned("simulate", "ioto", "--count", "1", "--ca", str(other), *ports, "--json", code=1)
    (error,) = done.row["errors"]
    assert "connect: TLS: certificate: " in error
    away = await spawned("simulate", "ioto", "--count", "2", "--mqtts-port", "1", *ports, "--json", code=1)
    assert away.row["errors"] == ["cannot reach 127.0.0.1:1: a service must run there; `gatehouse serve` starts one"]
    assert await fleet_of(service) == []


async def test_ctrl_c_leaves_nothing_behind(spawn: Spawn, service: Running, database_url: str) -> None:
    process: Process = await spawn(
        "simulate", "ioto", "--count", "500", "--rate", "20", *await ports_of(service),
        **service_environment(database_url),
    )  # fmt: skip
    await until(lambda: len(service.sessions), "a simulated session", 20)
    process.process.send_signal(2)
    assert await process.wait() == 130
    assert len(process.errors) == 1, process.errors
    assert await fleet_of(service) == []


async def test_a_service_that_answers_nonsense(spawned: Command, service: Running) -> None:
    """Whatever comes back is a wrong answer, never a traceback."""
    ports = await ports_of(service)
    bodies = [b"null", b"{", b"{}", b'{"registered":1}', b'{"registered":true,"token":"T"}', b"[" * 100_000, b"\xff"]
    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body) for body in bodies]
    answers += [b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}", b"nonsense"]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers.pop() if answers else b"")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        options = ["--http-port", str(server.sockets[0].getsockname()[1]), *ports[:2]]
        done = await spawned("simulate", "ioto", "--count", "10", *options, "--json", code=1)
    assert done.row["wrong"] == 10
    assert "Traceback" not in done.err
    assert json.dumps(done.row)
