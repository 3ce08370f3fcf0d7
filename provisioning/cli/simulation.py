"""The play of simulated devices: how many at a time, how long each step takes, what counts as wrong. Knows no vendor.

The devices themselves, one file for each vendor: `simulation_enos`, `simulation_tencent`, `simulation_ioto`.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import aiohttp
import aiomqtt

from provisioning.handshake import words

T = TypeVar("T")

HOPELESS: Final = 50
"""After so many wrong answers and no right one there is nothing to be learnt from more."""
TOLD: Final = 5
QUOTED: Final = 200
SUCCESS: Final = 200
"""HTTP's, and EnOS's."""
SILENT: Final = logging.getLogger("simulation")
SILENT.setLevel(logging.CRITICAL)  # what goes wrong is an answer, and told once


class WrongAnswerError(Exception):
    """The service did not do what the contract says; the text says at which step, and what it did."""


class UnreachableError(WrongAnswerError):
    """Nobody is at an address: that is the same for each device, and told once."""

    def __init__(self, host: str, port: int) -> None:
        at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        super().__init__(f"cannot reach {at}: a service must run there; `gatehouse serve` starts one")


@dataclass(slots=True)
class Report:
    """What came of it. `steps`: seconds that each step took, of the devices that got through it."""

    steps: dict[str, list[float]]
    right: int = 0
    wrong: int = 0
    errors: list[str] = field(default_factory=list)
    """The first few wrong answers."""
    seconds: float = 0.0

    @classmethod
    def of(cls, steps: Iterable[str]) -> "Report":
        return cls({step: [] for step in steps})

    @property
    def devices(self) -> int:
        return self.right + self.wrong

    @property
    def is_hopeless(self) -> bool:
        return self.wrong >= HOPELESS and not self.right

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.steps[step].append(time.perf_counter() - started)

    def latencies(self, step: str) -> dict[str, float]:
        """Milliseconds at the usual percentiles, by nearest rank."""
        taken = sorted(self.steps[step])
        ranks = {"p50": 50, "p95": 95, "p99": 99, "max": 100}
        return {name: round(taken[-(-len(taken) * rank // 100) - 1] * 1000, 1) for name, rank in ranks.items() if taken}


@dataclass(frozen=True, slots=True)
class Stage:
    """What every device plays on."""

    http: aiohttp.ClientSession
    report: Report
    timeout: float
    """Seconds for each step."""

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[None]:
        """Whatever goes wrong in the block is a wrong answer at this step."""
        try:
            async with asyncio.timeout(self.timeout):
                yield
        except TimeoutError:
            raise WrongAnswerError(f"{name}: no answer within {self.timeout:g} s") from None
        except aiohttp.ClientConnectorError as error:
            raise UnreachableError(error.host, error.port or 80) from error
        except UnreachableError:
            raise
        except (
            aiohttp.ClientError,
            aiomqtt.MqttError,
            OSError,
            ValueError,
            KeyError,
            TypeError,
            RecursionError,
        ) as error:
            raise WrongAnswerError(f"{name}: {type(error).__name__}: {str(error)[:QUOTED]}") from error
        except WrongAnswerError as error:
            raise WrongAnswerError(f"{name}: {error}") from None

    async def whole(self, request: Coroutine[Any, Any, T]) -> T:
        """Its answer. Who is interrupted waits for it too: what the service does all the same must not come later."""
        task = asyncio.create_task(request)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task}, timeout=self.timeout)
            if task.done() and not task.cancelled():
                task.exception()  # nobody asks any more
            else:
                task.cancel()
            raise

    def client(
        self, address: tuple[str, int], client_id: str, username: str | None = None, password: str | None = None,
        **more: Any,
    ) -> aiomqtt.Client:  # fmt: skip
        """`more`: as `aiomqtt.Client` takes it."""
        host, port = address
        return aiomqtt.Client(
            host, port, logger=SILENT, identifier=client_id, username=username, password=password,
            timeout=self.timeout, **more,
        )  # fmt: skip


Life = Callable[[Stage, str], Awaitable[None]]
"""A device, by its name, from its first step to its last. Raises: WrongAnswerError."""


@dataclass(frozen=True, slots=True)
class Pace:
    rate: float = 0.0
    """Devices that start in a second; 0: as fast as they come through."""
    concurrency: int = 50
    """Devices at the same time."""
    timeout: float = 10.0
    """Seconds for each step of a device."""


async def play(
    life: Life, fleet: Sequence[str], steps: Iterable[str], pace: Pace, *,
    on_done: Callable[[Report], None] = lambda _: None,
) -> Report:  # fmt: skip
    """Let each device of the fleet live."""
    report = Report.of(steps)
    free = asyncio.Semaphore(pace.concurrency)
    loop = asyncio.get_running_loop()
    started = loop.time()
    connector = aiohttp.TCPConnector(limit=pace.concurrency)
    async with aiohttp.ClientSession(connector=connector) as http, asyncio.TaskGroup() as tasks:
        stage = Stage(http, report, pace.timeout)

        async def live(name: str) -> None:
            try:
                await life(stage, name)
                report.right += 1
            except WrongAnswerError as error:
                report.wrong += 1
                told = str(error) if isinstance(error, UnreachableError) else f"{name}: {error}"
                if len(report.errors) < TOLD and told not in report.errors:
                    report.errors.append(told)
            finally:
                free.release()
            on_done(report)

        for number, name in enumerate(fleet):
            if pace.rate:
                await asyncio.sleep(max(0.0, started + number / pace.rate - loop.time()))
            await free.acquire()
            if report.is_hopeless:
                report.errors.append(f"stopped after {report.wrong} wrong answers and no right one")
                break
            tasks.create_task(live(name))
    report.seconds = loop.time() - started
    return report


async def enter(client: aiomqtt.Client, address: tuple[str, int]) -> None:
    """Log in. Raises: UnreachableError; WrongAnswerError, when TLS fails; MqttError, when the login is refused."""
    try:
        await client.__aenter__()
    except aiomqtt.MqttError as error:
        why = error.__context__  # aiomqtt keeps of it the text alone
        if isinstance(why, ssl.SSLError):
            raise WrongAnswerError(f"TLS: {words(why)}") from error
        if isinstance(why, OSError):
            raise UnreachableError(*address) from error
        raise


async def leave(client: aiomqtt.Client) -> None:
    """Disconnect; that the service has closed the connection already is no wrong answer of its own."""
    try:
        await client.__aexit__(None, None, None)
    except aiomqtt.MqttError:
        return


@asynccontextmanager
async def connected(client: aiomqtt.Client, address: tuple[str, int]) -> AsyncIterator[aiomqtt.Client]:
    await enter(client, address)
    try:
        yield client
    finally:
        await leave(client)


def payload_of(message: aiomqtt.Message) -> bytes:
    if not isinstance(message.payload, bytes):
        raise WrongAnswerError(f"an empty message on {message.topic}")
    return message.payload
