"""The vendors' own SDKs, each in processes and an environment of its own."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

ANSWER_WITHIN = 30.0


def interpreter(environment: str = ".venv-vendor") -> str:
    """The Python that has the SDK; a variable named like the environment, VENDOR_PYTHON, takes another one."""
    variable = f"{environment.removeprefix('.venv-').replace('-', '_').upper()}_PYTHON"
    named = os.environ.get(variable)
    path = Path(named) if named else ROOT / environment / "bin" / "python"
    if not path.is_file():
        pytest.fail(f"there is no {path}: the vendor's SDK is missing; run `make {environment}`, or set {variable}")
    return str(path)


class Driver:
    """A script that takes orders: `await driver("post")` gives what it answers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def __call__(self, order: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": order, **arguments}).encode() + b"\n")
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), ANSWER_WITHIN)
        except TimeoutError:
            pytest.fail(f"the SDK did not end `{order}` within {ANSWER_WITHIN:.0f} s")
        if not line:
            pytest.fail(f"the driver ended at `{order}`: {await self._errors()}")
        answer = json.loads(line)
        assert "error" not in answer, f"`{order}`: {answer['error']}; seen: {await self('seen')}"
        return answer["answer"]

    async def _errors(self) -> str:
        assert self._process.stderr is not None
        return (await self._process.stderr.read()).decode()[-2_000:]

    async def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()


Drive = Callable[[], Awaitable[Driver]]


@asynccontextmanager
async def drivers(script: str, environment: str) -> AsyncIterator[Drive]:
    """`device = await drive()` starts a device on the SDK. Killed when the block ends."""
    started: list[Driver] = []

    async def start() -> Driver:
        process = await asyncio.create_subprocess_exec(
            interpreter(environment), str(ROOT / "tests" / "vendor" / script), stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT / "tests" / "vendor",
            env=os.environ | {"PYTHONPATH": str(ROOT), "no_proxy": "*"},
        )  # fmt: skip
        started.append(Driver(process))
        return started[-1]

    try:
        yield start
    finally:
        for driver in started:
            await driver.end()


@pytest.fixture
async def drive() -> AsyncIterator[Drive]:
    """Devices on EnOS's SDK."""
    async with drivers("drive_enos.py", ".venv-vendor") as start:
        yield start
