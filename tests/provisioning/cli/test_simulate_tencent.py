import asyncio
import json

import pytest

from provisioning.app import Running
from provisioning.cli.simulate_tencent import ASKS, allowed
from provisioning.model.lifecycle import State
from provisioning.model.registry import Device
from provisioning.settings import load
from provisioning.store import devices
from tests.conftest import Process, Serve, Spawn, load_rows, service_environment, until
from tests.provisioning.cli.conftest import Command
from tests.registrants import NO_LIMITS, PRODUCT, PRODUCT_ID


async def fleet_of(running: Running) -> list[Device]:
    async with running.database.read() as tx:
        return await devices.page(tx, devices.Filter(protocol="tencent"), 0, 100)


async def ports_of(running: Running, **product: object) -> list[str]:
    """Where a service is, and the product of simulated devices, as options."""
    await load_rows(running, PRODUCT | product)
    found = running.ports
    return ["--http-port", str(found["http"]), "--mqtt-port", str(found["mqtt"]), "--product", PRODUCT_ID]


@pytest.mark.server
async def test_a_fleet_registers_logs_in_and_is_gone_again(spawned: Command, serve: Serve) -> None:
    running = await serve(tencent=NO_LIMITS)
    ports = await ports_of(running)
    done = await spawned("simulate", "tencent", "--count", "12", "--rate", "0", *ports, "--json")
    assert (done.row["devices"], done.row["wrong"], done.row["errors"]) == (12, 0, [])
    counts = {step: row["count"] for step, row in done.row["ms"].items()}
    assert counts == {"register": 24, "login": 12, "post": 12, "again": 12}
    assert all(0 < row["p50"] <= row["p95"] <= row["p99"] <= row["max"] for row in done.row["ms"].values())
    assert "deleted 12 simulated devices" in done.err
    assert await fleet_of(running) == []


@pytest.mark.server
async def test_keep_and_another_policy_within_the_usual_limits(spawned: Command, serve: Serve) -> None:
    running = await serve(tencent={"reregister": "rotate"})
    ports = await ports_of(running)
    done = await spawned("simulate", "tencent", "--count", "2", "--keep", *ports, "--reregister", "rotate")
    assert [row[:2] for row in done.table[:4]] == [["register", "4"], ["login", "2"], ["post", "2"], ["again", "2"]]
    kept = await fleet_of(running)
    assert [(device.key[:4], device.state) for device in kept] == [("sim-", State.ACTIVATED)] * 2


@pytest.mark.server
async def test_a_wrong_answer_is_told_and_ends_with_1(spawned: Command, serve: Serve) -> None:
    running = await serve(tencent=NO_LIMITS)
    ports = await ports_of(running, registerLimit=2)
    done = await spawned("simulate", "tencent", "--count", "5", "--concurrency", "1", *ports, "--json", code=1)
    assert (done.row["devices"], done.row["wrong"]) == (5, 3)
    assert all(error.endswith("register: 1006 Registration limit reached") for error in done.row["errors"])
    assert await fleet_of(running) == []


@pytest.mark.server
async def test_what_is_missing_in_the_registry_is_said(command: Command) -> None:
    assert "deny, same or rotate" in (await command("simulate", "tencent", "--reregister", "x", code=2)).err
    missing = await command("simulate", "tencent", code=1)
    assert missing.err == "gatehouse: there is no product DEMOMETER1: load the demo fleet, or name one with --product\n"
    tencent = ("--protocol", "tencent")
    await command("product", "create", "DEMOMETER1", *tencent)
    assert "does not let devices register" in (await command("simulate", "tencent", code=1)).err
    on = ("--dynamic-activation", "--auto-create")
    await command("product", "set", "DEMOMETER1", *tencent, *on, "--certificate-login")
    assert "have certificates" in (await command("simulate", "tencent", code=1)).err


@pytest.mark.server
async def test_ctrl_c_leaves_nothing_behind(spawn: Spawn, spawned: Command, serve: Serve, database_url: str) -> None:
    running = await serve(tencent=NO_LIMITS)
    ports = await ports_of(running)
    process: Process = await spawn(
        "simulate", "tencent", "--count", "500", "--rate", "20", *ports, **service_environment(database_url)
    )
    await until(lambda: len(running.sessions), "a simulated session", 20)
    process.process.send_signal(2)
    assert await process.wait() == 130
    assert len(process.errors) == 1, process.errors
    assert await fleet_of(running) == []


@pytest.mark.server
async def test_a_service_that_answers_nonsense(spawned: Command, serve: Serve) -> None:
    """Whatever comes back is a wrong answer, never a traceback."""
    ports = await ports_of(await serve())
    bodies = [b"null", b"{", b"{}", b'{"Response":7}', b'{"code":[]}', b"[" * 100_000]
    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body) for body in bodies]
    answers += [b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}", b"nonsense"]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers.pop() if answers else b"")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        options = ["--http-port", str(server.sockets[0].getsockname()[1]), *ports[2:], "--rate", "0"]
        done = await spawned("simulate", "tencent", "--count", "9", *options, "--json", code=1)
    assert done.row["wrong"] == 9
    assert "Traceback" not in done.err
    assert json.dumps(done.row)


@pytest.mark.parametrize(
    ("per_address", "per_product", "devices"), [(10, 20, 2.5), (12, 4, 1.0), (0, 20, 5.0), (8, 0, 2.0), (0, 0, 0.0)]
)
def test_no_faster_than_the_limits_allow(per_address: int, per_product: int, devices: float) -> None:
    """Each device registers so often; a share of the limits is left to others."""
    settings = load(tencent={"rate_per_address": per_address, "rate_per_product": per_product})
    assert ASKS == 3
    assert allowed(settings) == pytest.approx(devices)
