"""Simulated EnOS devices: real clients over the wire, strict about every answer.

Half of a fleet takes each road of a device to its secret:

    bootstrap    HTTP bootstrap -> login with its own secret -> a measurement, and its reply 200
    activation   login with the product's secret -> the pushed secret, acknowledged -> login, measurement as above
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import aiomqtt

from provisioning.cli.sign import Login, measurement, now_ms, post_topic, signed_bootstrap, signed_login
from provisioning.model.identity import Identity
from provisioning.protocols.enos import wire

HOPELESS: Final = 50
"""After so many wrong answers and no right one there is nothing to be learnt from more."""
TOLD: Final = 5
SUCCESS: Final = 200
"""HTTP's, and EnOS's."""
SILENT: Final = logging.getLogger("simulation")
SILENT.setLevel(logging.CRITICAL)  # what goes wrong is an answer, and told once
QUOTED: Final = 200


class Road(StrEnum):
    BOOTSTRAP = "bootstrap"
    ACTIVATION = "activation"


class WrongAnswerError(Exception):
    """The service did not do what the contract says; the text says at which step, and what it did."""


class UnreachableError(WrongAnswerError):
    """Nobody is at an address: that is the same for each device, and told once."""

    def __init__(self, host: str, port: int) -> None:
        at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        super().__init__(f"cannot reach {at}: a service must run there; `gatehouse serve` starts one")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where the service is, and with what the devices prove themselves."""

    http: str
    """Base URL."""
    mqtt: tuple[str, int]
    follow: bool
    """Bootstrapped devices go where the answer sends them (`murl`), not to `mqtt`."""
    group: str
    password: str = field(repr=False)
    product: str
    secret: str = field(repr=False)
    timeout: float
    """Seconds for each step."""


@dataclass(slots=True)
class Report:
    """What came of it. `steps`: seconds that each step took, of the devices that got through it."""

    steps: dict[str, list[float]] = field(
        default_factory=lambda: {s: [] for s in ("bootstrap", "activation", "login", "post")}
    )
    right: int = 0
    wrong: int = 0
    errors: list[str] = field(default_factory=list)
    """The first few wrong answers."""
    seconds: float = 0.0

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


async def play(
    plan: Plan,
    fleet: Sequence[tuple[Road, str]],
    *,
    rate: float = 0.0,
    concurrency: int = 50,
    on_done: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Let each device of the fleet (its road; its serial number or key) live through its road.

    `rate`: devices that start in a second, 0: as fast as they come through; `concurrency`: how many at the same time.
    """
    report = Report()
    free = asyncio.Semaphore(concurrency)
    loop = asyncio.get_running_loop()
    started = loop.time()
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector) as http, asyncio.TaskGroup() as tasks:

        async def live(road: Road, name: str) -> None:
            try:
                await Player(plan, http, report).live(road, name)
                report.right += 1
            except WrongAnswerError as error:
                report.wrong += 1
                told = str(error) if isinstance(error, UnreachableError) else f"{name}: {error}"
                if len(report.errors) < TOLD and told not in report.errors:
                    report.errors.append(told)
            finally:
                free.release()
            on_done(report)

        for number, (road, name) in enumerate(fleet):
            if rate:
                await asyncio.sleep(max(0.0, started + number / rate - loop.time()))
            await free.acquire()
            if report.is_hopeless:
                report.errors.append(f"stopped after {report.wrong} wrong answers and no right one")
                break
            tasks.create_task(live(road, name))
    report.seconds = loop.time() - started
    return report


class Player:
    """One device."""

    def __init__(self, plan: Plan, http: aiohttp.ClientSession, report: Report) -> None:
        self._plan = plan
        self._http = http
        self._report = report

    async def live(self, road: Road, name: str) -> None:
        """Raises: WrongAnswerError."""
        if road is Road.BOOTSTRAP:
            identity, secret, address = await self._bootstrap(name)
        else:
            identity, address = Identity(wire.PROTOCOL, self._plan.product, name), self._plan.mqtt
            secret = await self._activate(identity)
        async with self._step("login"):
            client = self._client(signed_login(identity, secret, timestamp=str(now_ms())), address)
            with self._report.timed("login"):
                await _enter(client, address)
        try:
            await self._post(client, identity)
        finally:
            await _leave(client)

    @asynccontextmanager
    async def _step(self, name: str) -> AsyncIterator[None]:
        """Whatever goes wrong in the block is a wrong answer at this step."""
        try:
            async with asyncio.timeout(self._plan.timeout):
                yield
        except TimeoutError:
            raise WrongAnswerError(f"{name}: no answer within {self._plan.timeout:g} s") from None
        except aiohttp.ClientConnectorError as error:
            raise UnreachableError(error.host, error.port or 80) from error
        except UnreachableError:
            raise
        except (aiohttp.ClientError, aiomqtt.MqttError, OSError, ValueError, KeyError, TypeError) as error:
            raise WrongAnswerError(f"{name}: {type(error).__name__}: {str(error)[:QUOTED]}") from error
        except WrongAnswerError as error:
            raise WrongAnswerError(f"{name}: {error}") from None

    def _client(self, login: Login, address: tuple[str, int]) -> aiomqtt.Client:
        host, port = address
        return aiomqtt.Client(
            host, port, logger=SILENT, identifier=login.client_id, username=login.username, password=login.password,
            timeout=self._plan.timeout,
        )  # fmt: skip

    async def _bootstrap(self, serial: str) -> tuple[Identity, str, tuple[str, int]]:
        plan = self._plan
        body = signed_bootstrap(plan.group, serial, plan.password, timestamp=now_ms())
        async with self._step("bootstrap"):
            with self._report.timed("bootstrap"):
                async with self._http.post(f"{plan.http}/2.4.0/bootstrap", json=body) as response:
                    status, answer = response.status, await response.json(content_type=None)
            if not isinstance(answer, dict) or status != SUCCESS or "ds" not in answer:
                said = f"{answer.get('code')} {answer.get('msg')}" if isinstance(answer, dict) else "no JSON object"
                raise WrongAnswerError(f"HTTP {status}: {said[:QUOTED]}")
            if not all(
                isinstance(answer.get(name), str) and answer[name] for name in ("murl", "hurl", "pk", "dk", "ds")
            ):
                raise WrongAnswerError("one of murl, hurl, pk, dk, ds is not there")
            return Identity(wire.PROTOCOL, answer["pk"], answer["dk"]), answer["ds"], self._address(answer["murl"])

    def _address(self, murl: str) -> tuple[str, int]:
        parts = urlsplit(murl)
        if parts.scheme != "tcp" or not parts.hostname or not parts.port or parts.path:
            raise WrongAnswerError(f"murl {murl!r} is not tcp://host:port")
        return (parts.hostname, parts.port) if self._plan.follow else self._plan.mqtt

    async def _activate(self, identity: Identity) -> str:
        """The secret that the service pushes, unasked."""
        login = signed_login(identity, self._plan.secret, timestamp=str(now_ms()), dynamic=True)
        topic = wire.activation_topic(identity)
        async with self._step("activation"), AsyncExitStack() as stack:
            with self._report.timed("activation"):
                client = await stack.enter_async_context(
                    _connected(self._client(login, self._plan.mqtt), self._plan.mqtt)
                )
                message = await anext(aiter(client.messages))
            secret = _pushed(message, topic, identity)
            reply = {"id": "1", "code": SUCCESS, "data": None}
            await client.publish(wire.reply_to(topic), json.dumps(reply), qos=1)
            return secret

    async def _post(self, client: aiomqtt.Client, identity: Identity) -> None:
        topic, request_id = post_topic(identity), str(now_ms())
        async with self._step("post"):
            await client.subscribe(wire.reply_to(topic), qos=1)
            with self._report.timed("post"):
                await client.publish(topic, measurement(request_id), qos=1)
                async for message in client.messages:
                    if str(message.topic) == wire.reply_to(topic):
                        break
            answer = json.loads(_payload(message))
            if answer["id"] != request_id or answer["code"] != SUCCESS:
                raise WrongAnswerError(f"the reply is {str(answer)[:QUOTED]}")


@asynccontextmanager
async def _connected(client: aiomqtt.Client, address: tuple[str, int]) -> AsyncIterator[aiomqtt.Client]:
    await _enter(client, address)
    try:
        yield client
    finally:
        await _leave(client)


async def _enter(client: aiomqtt.Client, address: tuple[str, int]) -> None:
    """Log in. Raises: UnreachableError; MqttError, when the login is refused."""
    try:
        await client.__aenter__()
    except aiomqtt.MqttError as error:
        if isinstance(error.__context__, OSError):  # aiomqtt keeps of it the text alone
            raise UnreachableError(*address) from error
        raise


async def _leave(client: aiomqtt.Client) -> None:
    """Disconnect; that the service has closed the connection already is no wrong answer of its own."""
    try:
        await client.__aexit__(None, None, None)
    except aiomqtt.MqttError:
        return


def _payload(message: aiomqtt.Message) -> bytes:
    if not isinstance(message.payload, bytes):
        raise WrongAnswerError(f"an empty message on {message.topic}")
    return message.payload


def _pushed(message: aiomqtt.Message, topic: str, identity: Identity) -> str:
    """The secret in the push. Its form is as narrow as real clients are: compact, and its id is text."""
    payload = _payload(message)
    if str(message.topic) != topic:
        raise WrongAnswerError(f"a message on {message.topic} came before the secret")
    push: Any = json.loads(payload)
    params = push["params"]
    secret = params["deviceSecret"]
    if (params["productKey"], params["deviceKey"]) != (identity.product, identity.device):
        raise WrongAnswerError("the secret of another device was pushed")
    if not isinstance(secret, str) or payload != wire.write_activation(identity, params["assetId"], secret):
        raise WrongAnswerError("the push is not of the form that clients read")
    return secret
