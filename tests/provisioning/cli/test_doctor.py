"""`gatehouse doctor` as a whole; its examinations have tests of their own."""

import os
from pathlib import Path

import pytest

from provisioning.cli import doctor
from provisioning.model.refusal import Reason, Refusal
from tests.conftest import Serve, Spawn
from tests.provisioning.cli.conftest import Command
from tests.provisioning.cli.test_terminal import STYLE, on_terminal

pytestmark = pytest.mark.server


@pytest.fixture(autouse=True)
def _own_directory(monkeypatch: pytest.MonkeyPatch, data_directory: Path, command: Command) -> None:
    """After `command`, which names that of all tests."""
    monkeypatch.setenv("GATEHOUSE_DATA_DIR", str(data_directory))
    monkeypatch.setenv("GATEHOUSE_MQTT__MAX_CONNECTIONS", "10")  # what any machine has


async def test_a_sound_installation(command: Command) -> None:
    await command("ca", "create", "acme")
    rows = (await command("doctor", "--json")).rows
    assert {each["status"] for each in rows} <= {"ok", "info", "warning"}
    found = {(each["check"], each["status"]) for each in rows}
    assert found >= {
        ("settings", "ok"), ("data directory", "ok"), ("master key", "ok"), ("clock", "ok"), ("open files", "ok"),
        ("database", "ok"), ("migrations", "ok"), ("database clock", "ok"), ("notifications", "ok"),
        ("default authority", "ok"), ("authority acme-1", "ok"), ("device certificates", "ok"),
        ("server certificate", "info"), ("http", "info"), ("mqtt", "info"),
    }  # fmt: skip
    assert all(each.keys() == {"check", "status", "finding", "advice"} and each["finding"] for each in rows)


async def test_a_problem_ends_with_1_and_says_what_to_do(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEHOUSE_MASTER_KEY", "00" * 32)
    rows = (await command("doctor", "--json", code=1)).rows
    problems = [each for each in rows if each["status"] == "problem"]
    assert [(each["check"], each["finding"]) for each in problems] == [
        ("master key", "this database was sealed under another master key")
    ]
    assert all(each["advice"] for each in problems)


async def test_settings_that_cannot_be_read(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEHOUSE_HTTP__PORT", "-1")
    (line,) = (await command("doctor", code=1)).table
    assert line[:2] == ["settings", "problem"]
    assert line[2].startswith("GATEHOUSE_HTTP__PORT: ")


async def test_nothing_is_made(spawn: Spawn, data_directory: Path) -> None:
    """Not even where there is nothing yet, as a newcomer finds it."""
    nowhere = data_directory / "data"
    unset = dict.fromkeys(("GATEHOUSE_DATABASE__URL", "GATEHOUSE_MASTER_KEY"), "")
    process = await spawn("doctor", cwd=data_directory, GATEHOUSE_DATA_DIR=str(nowhere), **unset)
    assert await process.wait() == 0, process.errors
    assert not nowhere.exists()
    lines = [line.split("\t") for line in process.lines]
    assert ["database", "warning", "there is none yet"] in [line[:3] for line in lines]


async def test_a_service_that_runs(serve: Serve, spawned: Command, data_directory: Path) -> None:
    running = await serve(data_dir=data_directory)
    ports = {f"GATEHOUSE_{name.upper()}__PORT": str(port) for name, port in running.ports.items()}
    rows = (await spawned("doctor", "--json", GATEHOUSE_DATA_DIR=str(data_directory), **ports)).rows
    found = {each["check"]: each["finding"] for each in rows}
    assert found["http"] == f"ready on 127.0.0.1:{running.ports['http']}"
    for name in ("mqtt", "https", "mqtts"):
        assert found[name] == f"somebody listens on 127.0.0.1:{running.ports[name]}"
    assert ("server certificate", "ok") in {(each["check"], each["status"]) for each in rows}


async def test_a_table_for_people(database_url: str, data_directory: Path) -> None:
    code, screen = await on_terminal(database_url, "doctor", GATEHOUSE_DATA_DIR=str(data_directory))
    lines = [line.split() for line in STYLE.sub("", screen).splitlines() if line.strip()]
    assert code == 0
    assert lines[0] == ["check", "status", "finding", "advice"]
    assert ["settings", "ok"] in [line[:2] for line in lines]
    assert all(len(line) <= 80 for line in STYLE.sub("", screen).splitlines())


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Refusal(Reason.UNAVAILABLE, error="gone"), "the database is away: gone"),
        (KeyError("odd"), "the check broke off: KeyError: 'odd'"),
    ],
)
async def test_an_examination_that_breaks_off_is_a_finding(error: Exception, words: str) -> None:
    async def examine() -> doctor.Findings:
        yield doctor.Finding("one", doctor.Level.OK, "fine")
        raise error

    found = [each async for each in doctor._guarded("all", examine())]
    assert [(each.check, each.status, each.finding) for each in found] == [
        ("one", "ok", "fine"), ("all", "problem", words),
    ]  # fmt: skip


async def test_no_secret_is_told(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEHOUSE_DATABASE__URL", "postgresql://user:hush#hush@localhost:1/x")
    done = await command("doctor", code=1)
    assert "hush" not in done.out + done.err
    assert os.environ["GATEHOUSE_MASTER_KEY"] not in done.out
