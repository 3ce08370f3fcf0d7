"""provisioning/cli/simulate_ublox.py"""

import asyncio
import json
import re

import pytest

from provisioning.app import Running
from provisioning.cli.simulate_ublox import DEMO_KEY, DEMO_SECRET
from provisioning.model.lifecycle import State
from provisioning.model.registry import Device
from provisioning.store import accounts, devices, roots
from provisioning.store.database import Database
from tests.conftest import ROOT, Process, Serve, Spawn, service_environment, until
from tests.provisioning.cli.conftest import Command
from tests.ublox import KEY, SECRET, make_account

pytestmark = pytest.mark.server


ACCOUNT = ("--account", KEY, "--secret", SECRET)


async def fleet_of(database: Database) -> list[Device]:
    async with database.read() as tx:
        return await devices.page(tx, devices.Filter(protocol="ublox"), 0, 1_000)


async def has_root(running: Running) -> bool:
    """Has the account a root CA?"""
    async with running.database.read() as tx:
        found = await accounts.find(tx, "ublox", KEY)
        assert found is not None
        return bool(await roots.count(tx, found[0].id))


def options(running: Running) -> list[str]:
    return [*ACCOUNT, "--http-port", str(running.ports["http"])]


async def test_modules_live_and_are_kept(spawned: Command, serve: Serve) -> None:
    """By the requests a second that the account has: the default of 20 would take too long here."""
    running = await serve(ublox={"rate": 200})
    await make_account(running.database)
    done = await spawned("simulate", "ublox", "--count", "6", "--keep", *options(running), GATEHOUSE_UBLOX__RATE="200")
    assert [row[:2] for row in done.table[:-1]] == [
        ["authenticate", "1"], ["rootca", "1"], ["whitelist", "1"], ["bootstrap", "6"], ["provision", "6"],
        ["heartbeat", "6"], ["confirm", "6"], ["uplink", "12"], ["downlink", "6"], ["info", "6"], ["clone", "4"],
    ]  # fmt: skip
    assert re.fullmatch(r"6 devices in [0-9.]+ s, 0 wrong \(times in ms\)", done.table[-1][0])
    kept = await fleet_of(running.database)
    assert [(device.key[:4], device.state) for device in kept] == [("5349", State.ACTIVATED)] * 6
    assert await has_root(running)


async def test_what_is_wrong_is_told(command: Command, database: Database) -> None:
    missing = await command("simulate", "ublox", code=1)
    assert missing.err == "gatehouse: there is no such account: load the demo fleet, or name one with --account\n"
    await make_account(database)
    nameless = await command("simulate", "ublox", "--account", KEY, code=1)
    assert nameless.err == "gatehouse: state the API secret of the account with --secret\n"
    nobody = await command("simulate", "ublox", *ACCOUNT, "--http-port", "1", "--json", code=1)
    assert nobody.row["errors"] == ["cannot reach 127.0.0.1:1: a service must run there; `gatehouse serve` starts one"]
    assert await fleet_of(database) == []


def test_the_demo_account_is_the_one_of_the_demo_fleet() -> None:
    rows = [json.loads(line) for line in (ROOT / "config/demo.ndjson").read_text("utf-8").splitlines()]
    (account,) = [row for row in rows if row["type"] == "account"]
    assert (account["apiKey"], account["apiSecret"]) == (DEMO_KEY, DEMO_SECRET)


async def test_ctrl_c_leaves_nothing_behind(spawn: Spawn, serve: Serve, database_url: str) -> None:
    running = await serve(ublox={"rate": 0})
    await make_account(running.database)
    process: Process = await spawn(
        "simulate", "ublox", "--count", "300", "--rate", "20", *options(running), **service_environment(database_url),
    )  # fmt: skip
    await until(lambda: has_root(running), "the root CA of the run", 20)
    process.process.send_signal(2)
    assert await process.wait() == 130
    assert process.errors == ["deleted 300 simulated devices"]
    assert await fleet_of(running.database) == []
    assert not await has_root(running)


async def test_a_service_that_answers_nonsense(command: Command, database: Database) -> None:
    """Whatever comes back is a wrong answer, never a traceback."""
    await make_account(database)
    bodies = [b"null", b"{", b"{}", b'{"AuthToken":1}', b"[" * 100_000, b"\xff", b'{"Certificate":1}']
    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body) for body in bodies]
    answers += [b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}", b"nonsense"]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answers.pop() if answers else b"")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        at = ["--http-port", str(server.sockets[0].getsockname()[1])]
        few = ["--count", "10", "--concurrency", "1"]
        done = await command("simulate", "ublox", *few, *ACCOUNT, *at, "--json", code=1)
    assert (done.row["wrong"], done.row["errors"][0][16:31]) == (10, ": authenticate:")
    assert "Traceback" not in done.err
