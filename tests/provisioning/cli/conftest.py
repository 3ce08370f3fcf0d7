"""The command line as tests use it: in this process, or in one of its own."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from typer.testing import CliRunner

from provisioning.cli import app
from tests.conftest import Spawn, service_environment


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The JSON objects that were printed."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def row(self) -> dict[str, Any]:
        (only,) = self.rows
        return only

    @property
    def table(self) -> list[list[str]]:
        """The tab-separated lines that were printed."""
        return [line.split("\t") for line in self.out.splitlines()]


Command = Callable[..., Awaitable[Done]]


@pytest.fixture
def command(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command on the test's database, in this process: `await command("product", "list")`."""
    for name, value in service_environment(database_url).items():
        monkeypatch.setenv(name, value)

    async def run(*args: str, code: int = 0, stdin: bytes | None = None) -> Done:
        result = await asyncio.to_thread(CliRunner().invoke, app, list(args), input=stdin)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, f"{args} ended with {result.exit_code}: {result.stderr or result.stdout}"
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def spawned(database_url: str, spawn: Spawn) -> Command:
    """As `command`, in a process of its own: for tests whose service logs in this one."""

    async def run(*args: str, code: int = 0, **environment: str) -> Done:
        process = await spawn(*args, **(service_environment(database_url) | environment))
        found = await process.wait()
        assert found == code, f"{args} ended with {found}: {process.errors}"
        return Done(found, "".join(f"{line}\n" for line in process.lines), "\n".join(process.errors))

    return run
