"""A real listener and a real embedded broker on a free port; logins are judged by the real EnOS scheme, from memory."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
import structlog
from structlog.testing import LogCapture

from broker import activation, client, connection, embedded, listener, plugin
from broker.connection import Connection
from broker.embedded import EmbeddedBroker
from broker.listener import Limits, Listener
from broker.sessions import Sessions
from provisioning.model.admission import UNLIMITED, Admission, Conduct, Rejection, SessionLimits, Verdict
from provisioning.model.credential import Credential, DeviceCredential, ProductCredential
from provisioning.model.identity import Identity
from provisioning.model.mqtt import Connect, Peer
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.enos.mqtt import Enos
from provisioning.sections import Enos as EnosSettings
from tests.devices import Raw, connect, login, raw

SYS = "/sys/pk1/dk1/"
PUSH = "/ext/session/pk1/dk1/thing/activate/info"
POST = "/sys/pk1/dk1/thing/measurepoint/post"
REPORT = b'{"id":"1","version":"1.0","method":"thing.measurepoint.post","params":{"measurepoints":{"a":1}}}'


class Judge:
    """Decides CONNECTs: every device has the secret ds1, every product the secret ps1."""

    def __init__(self, **settings: Any) -> None:
        self.enos = Enos(EnosSettings(**settings))
        self.limits = UNLIMITED
        self.conduct: Conduct = self.enos
        self.asked = 0
        self.hold: asyncio.Event | None = None
        """Verdicts come when it is set."""

    def decide(self, connect: Connect) -> Verdict:
        self.asked += 1
        try:
            claim = self.enos.read_connect(connect)
        except Refusal as refusal:
            return self.enos.reject(refusal.reason)
        if claim is None:
            return Rejection(reason=Reason.NOT_PROVEN, code=4, code5=0x86)
        secret = "ds1" if claim.means.value == "device" else "ps1"
        if not claim.proven_by(secret):
            return self.enos.reject(Reason.NOT_PROVEN)
        product = ProductCredential(id=1, secret="ps1", dynamic_activation=True, auto_create=False)
        device = DeviceCredential(
            id=hash(claim.identity.device), secret="ds1", epoch=1, asset="as1", disabled=False, activated=True
        )
        admission = self.enos.admit(claim, Credential(claim.identity, product, device))
        return replace(admission, limits=self.limits, conduct=self.conduct)

    def admit(self, connect: Connect, _peer: Peer) -> Verdict | asyncio.Task[Verdict]:
        if self.hold is None:
            return self.decide(connect)
        return asyncio.get_running_loop().create_task(self._later(self.hold, connect))

    async def _later(self, hold: asyncio.Event, connect: Connect) -> Verdict:
        await hold.wait()
        return self.decide(connect)


@dataclass
class Door:
    judge: Judge
    listener: Listener
    broker: EmbeddedBroker
    sessions: Sessions
    lines: LogCapture
    present: set[int] = field(default_factory=set)
    """Ids of the devices that are there."""
    acknowledged: list[Admission] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.listener.port

    @property
    def connections(self) -> set[Connection]:
        """Those of the listener; without TLS there are no handshakes among them."""
        return cast("set[Connection]", self.listener.connections)

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [dict(line) for line in self.lines.entries if line["event"] == event]

    def client(self) -> AbstractAsyncContextManager[Raw]:
        return raw(self.port)

    @asynccontextmanager
    async def device(self, key: str = "dk1", *, mode: str = "2", **more: Any) -> AsyncIterator[Raw]:
        """A device that is logged in."""
        async with raw(self.port) as client:
            answer = await client.login(self.connect(key, mode=mode, **more))
            assert answer.code == 0, f"CONNACK {answer.code}"
            yield client

    @staticmethod
    def connect(key: str = "dk1", *, mode: str = "2", **more: Any) -> Connect:
        return connect(login(key, "ds1" if mode == "2" else "ps1", mode=mode), **more)

    def identity(self, key: str = "dk1") -> Identity:
        return Identity("enos", "pk1", key)

    @property
    def is_empty(self) -> bool:
        """Is there nothing left of any connection?"""
        left = self.listener
        return not (left.connections or left.per_address or len(self.sessions) or len(left.deadlines))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    """What the broker's files log."""
    capture = LogCapture()
    logger = structlog.wrap_logger(None, processors=[capture], wrapper_class=structlog.make_filtering_bound_logger(0))
    for module in (listener, connection, activation, client, plugin):
        monkeypatch.setattr(module, "log", logger)
    return capture


@asynccontextmanager
async def open_door(
    lines: LogCapture,
    *,
    limits: dict[str, Any] | None = None,
    broker: dict[str, Any] | None = None,
    enos: dict[str, Any] | None = None,
    session: SessionLimits = UNLIMITED,
) -> AsyncIterator[Door]:
    judge = Judge(**(enos or {}))
    judge.limits = session
    behind = EmbeddedBroker(embedded.Limits(**(broker or {})))
    await behind.start()
    sessions = Sessions()
    present: set[int] = set()
    acknowledged: list[Admission] = []
    front = Listener(
        judge.admit, behind, sessions, Limits(**(limits or {})),
        came=present.add, went=present.discard,
        on_acknowledged=acknowledged.append,
    )  # fmt: skip
    await front.start("127.0.0.1", 0)
    try:
        yield Door(judge, front, behind, sessions, lines, present, acknowledged)
    finally:
        await front.stop()
        await behind.shutdown()
