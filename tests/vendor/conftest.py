"""The vendor's own SDK in a process and an environment of its own."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

ANSWER_WITHIN = 30.0


def interpreter() -> str:
    """The Python that has the SDK."""
    named = os.environ.get("VENDOR_PYTHON")
    path = Path(named) if named else ROOT / ".venv-vendor" / "bin" / "python"
    if not path.is_file():
        pytest.fail(f"there is no {path}: the vendor's SDK is missing; run `make .venv-vendor`, or set VENDOR_PYTHON")
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


@pytest.fixture
async def drive() -> AsyncIterator[Drive]:
    """Start a device on the SDK: `device = await drive()`. Killed when the test ends."""
    started: list[Driver] = []

    async def start() -> Driver:
        process = await asyncio.create_subprocess_exec(
            interpreter(), str(ROOT / "tests" / "vendor" / "drive_enos.py"), stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT / "tests" / "vendor",
        )  # fmt: skip
        started.append(Driver(process))
        return started[-1]

    yield start
    for driver in started:
        await driver.end()
