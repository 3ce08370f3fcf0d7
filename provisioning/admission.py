"""From CONNECT to verdict: ask each protocol "is this yours?", look its identity up, judge, write, admit.

On a cache hit with nothing to write all this happens without a task: `Admissions.decide` answers at once.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

from provisioning import log
from provisioning.core.activate import LoginWrites
from provisioning.core.blocking import Blocker
from provisioning.core.login import CertificateRole, LoginClaim, Write, asks_for_certificate, judge_connection
from provisioning.core.pacing import Intervals
from provisioning.metrics import Metrics
from provisioning.model.admission import Admission, Rejection, Verdict
from provisioning.model.credential import Credential
from provisioning.model.mqtt import Connect, Peer
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols import VendorProtocol
from provisioning.store.credentials import Credentials
from provisioning.store.holdings import Holding, Holdings

NOBODYS: Final = Rejection(reason=Reason.NOT_PROVEN, code=4, code5=0x86)
"""For a CONNECT that no protocol calls its own."""
FAILED: Final = Rejection(reason=Reason.INTERNAL, code=3, code5=0x88)
NOBODYS_VERSION: Final = Rejection(reason=Reason.UNSUPPORTED_VERSION, code=1, code5=0x84)
MOST_CHANGES: Final = 3
COUNTED: Final = frozenset({Reason.NOT_PROVEN, Reason.STALE, Reason.ACTIVATION_OFF, Reason.ACTIVATION_SPENT,
                            Reason.DISABLED, Reason.UNSUPPORTED, Reason.CERTIFICATE_REQUIRED})  # fmt: skip
"""Refusals that count towards a block: not what is merely malformed, and not what is our own fault."""


class Admissions:
    """Decides CONNECTs, and writes the canonical line of each."""

    def __init__(
        self,
        protocols: Sequence[VendorProtocol],
        credentials: Credentials,
        holdings: Holdings,
        writes: LoginWrites,
        *,
        blocker: Blocker,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._protocols = protocols
        self._credentials = credentials
        self._holdings = holdings
        self._writes = writes
        self._blocker = blocker
        self._metrics = metrics
        self._intervals = Intervals(clock)
        self._log = log.get()
        self._tasks: set[asyncio.Task[None]] = set()

    def decide(self, connect: Connect, peer: Peer) -> Verdict | asyncio.Task[Verdict]:
        """The verdict, or a task that comes to it. Neither raises."""
        started = time.perf_counter()
        try:
            return self._decide_now(connect, peer, started)
        except Exception:  # noqa: BLE001 - logged there with its traceback
            return self._failed(None, peer, started)

    def _decide_now(self, connect: Connect, peer: Peer, started: float) -> Verdict | asyncio.Task[Verdict]:
        for protocol in self._protocols:
            try:
                claim = protocol.read_connect(connect, peer)
            except Refusal as refusal:
                return self._refuse(protocol, None, connect, peer, refusal, started=started)
            if claim is not None:
                break
        else:
            return self._nobodys(connect, peer, started)
        if self._blocker.is_blocked((claim.identity, peer.address)):
            return self._refuse(protocol, claim, connect, peer, Refusal(Reason.BLOCKED), started=started)
        credential = self._credentials.get(claim.identity)
        if credential is not None and not (peer.tls and asks_for_certificate(claim, credential.product, tls=True)):
            try:
                if self._judge(claim, credential, None, peer) is Write.NOTHING:
                    return self._accept(protocol, claim, credential, None, peer=peer, started=started)
            except Refusal as refusal:
                return self._refuse(protocol, claim, connect, peer, refusal, started=started)
        return asyncio.get_running_loop().create_task(self._decide(protocol, claim, connect, peer, started))

    async def _decide(
        self, protocol: VendorProtocol, claim: LoginClaim, connect: Connect, peer: Peer, started: float
    ) -> Verdict:
        try:
            try:
                credential, holding = await self._granted(claim, peer)
                return self._accept(protocol, claim, credential, holding, peer=peer, started=started)
            except Refusal as refusal:
                return self._refuse(protocol, claim, connect, peer, refusal, started=started)
        except Exception:  # noqa: BLE001 - logged there with its traceback
            return self._failed(protocol, peer, started)

    async def _granted(self, claim: LoginClaim, peer: Peer) -> tuple[Credential, Holding | None]:
        """The credential by which the claim holds, and the certificate, when all that the login writes is durable.

        Raises:
            Refusal: the claim does not hold.
        """
        for _ in range(MOST_CHANGES):
            with self._credentials.watch(claim.identity) as watch:
                credential = self._credentials.get(claim.identity) or await self._credentials.look_up(claim.identity)
                holding = await self._holding(claim, credential, peer)
                match self._judge(claim, credential, holding, peer):
                    case Write.NOTHING:
                        pass
                    case Write.ISSUE:
                        await self._writes.issue(credential)
                    case Write.ACTIVATION:
                        await self._writes.activate(credential)
                        self._credentials.mark_activated(credential)
                    case Write.CREATE:
                        await self._writes.create(credential)
                        self._credentials.forget_missing()
                        continue
                if not watch.changed:
                    return credential, holding
        raise Refusal(Reason.UNAVAILABLE, error="the registry changes faster than it can be read")

    async def _holding(self, claim: LoginClaim, credential: Credential, peer: Peer) -> Holding | None:
        """What the inventory knows of the certificate that the peer has shown, if the login asks for one."""
        if not peer.certificate or not asks_for_certificate(claim, credential.product, tls=peer.tls):
            return None
        fingerprint = sha256(peer.certificate).hexdigest()
        return self._holdings.get(fingerprint) or await self._holdings.look_up(fingerprint)

    @staticmethod
    def _judge(claim: LoginClaim, credential: Credential, holding: Holding | None, peer: Peer) -> Write:
        return judge_connection(claim, credential, holding, tls=peer.tls, now=datetime.now(UTC)).write

    def acknowledged(self, admission: Admission) -> None:
        """The device has said that it holds the pushed secret."""
        self._metrics.activation(admission.identity.protocol, "acknowledged")
        if admission.once:
            task = asyncio.get_running_loop().create_task(self._close_activation(admission))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _close_activation(self, admission: Admission) -> None:
        try:
            await self._writes.close_activation(admission.device_id)
        except Refusal as refusal:
            self._log.warning("mqtt.activate", device=admission.identity.device, outcome="failed", reason=str(refusal))
        except Exception:  # noqa: BLE001 - nobody waits for it
            self._log.exception("mqtt.activate", device=admission.identity.device, outcome="failed", reason="internal")

    async def close(self) -> None:
        """Finish what was acknowledged."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(
        self,
        protocol: VendorProtocol,
        claim: LoginClaim,
        credential: Credential,
        holding: Holding | None,
        *,
        peer: Peer,
        started: float,
    ) -> Admission:
        """Raises: Refusal RATE_LIMITED, when the device comes again too soon for its protocol."""
        admission = protocol.admit(claim, credential)
        if interval := admission.limits.interval:
            self._intervals.keep(claim.identity, interval)
        if holding is not None:
            admission = replace(admission, certificate=holding.key)
            self._holdings.seen(holding, time.monotonic())
        seconds = time.perf_counter() - started
        identity = credential.identity
        self._log.info(
            "mqtt.login", protocol=identity.protocol, product=identity.product, device=identity.device, peer=str(peer),
            means=str(claim.means), outcome="accepted", ms=round(seconds * 1000, 2),
            **({"certificate": holding.serial} if holding else {}),
        )  # fmt: skip
        self._metrics.login(protocol.name, "accepted", "", seconds)
        return admission

    def _failed(self, protocol: VendorProtocol | None, peer: Peer, started: float) -> Rejection:
        """A mistake of ours: one line with its traceback, and the device may come again."""
        name = protocol.name if protocol else "none"
        self._log.exception("mqtt.login", protocol=name, peer=str(peer), outcome="failed", reason="internal")
        self._metrics.login(name, "failed", Reason.INTERNAL, time.perf_counter() - started)
        return FAILED

    def _refuse(
        self,
        protocol: VendorProtocol,
        claim: LoginClaim | None,
        connect: Connect,
        peer: Peer,
        refusal: Refusal,
        *,
        started: float,
    ) -> Rejection:
        # Where no secret is asked for, none is guessed: the refusals of an old certificate must not delay a new one.
        if claim is not None and refusal.reason in COUNTED and claim.certificate_role is not CertificateRole.ALONE:
            self._blocker.refused((claim.identity, peer.address))
        rejection = protocol.reject(refusal.reason)
        outcome = "failed" if refusal.reason in {Reason.UNAVAILABLE, Reason.INTERNAL} else "refused"
        named: dict[str, object] = (
            {"product": claim.identity.product, "device": claim.identity.device, "means": str(claim.means)}
            if claim
            else {"username": connect.username, "client_id": connect.client_id.partition("|")[0]}
        )
        self._line(protocol.name, named, peer, outcome, rejection, started=started, detail=refusal.detail)
        return rejection

    def _nobodys(self, connect: Connect, peer: Peer, started: float) -> Rejection:
        rejection = NOBODYS if connect.level in {4, 5} else NOBODYS_VERSION
        named: dict[str, object] = {"username": connect.username, "client_id": connect.client_id.partition("|")[0]}
        self._line("none", named, peer, "refused", rejection, started=started, detail={})
        return rejection

    def _line(
        self,
        protocol: str,
        named: dict[str, object],
        peer: Peer,
        outcome: str,
        rejection: Rejection,
        *,
        started: float,
        detail: Mapping[str, object],
    ) -> None:
        seconds = time.perf_counter() - started
        write: Callable[..., None] = self._log.warning if outcome == "failed" else self._log.info
        fields = named | {
            "peer": str(peer), "outcome": outcome, "reason": str(rejection.reason), "connack": rejection.code,
            "ms": round(seconds * 1000, 2),
        }  # fmt: skip
        write("mqtt.login", protocol=protocol, **{**detail, **fields})
        self._metrics.login(protocol, outcome, rejection.reason, seconds)
