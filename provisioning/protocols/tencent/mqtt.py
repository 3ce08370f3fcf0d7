"""Tencent IoT Hub over MQTT: from CONNECT to claim, from claim to admission, and what the cloud does with messages."""

import time
from collections.abc import Awaitable, Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Final

from provisioning.core.gateway import Gateways
from provisioning.core.login import LoginClaim
from provisioning.model.admission import NOTHING, Admission, Answer, Notice, Rejection, SessionLimits
from provisioning.model.credential import Credential
from provisioning.model.identity import Identity
from provisioning.model.mqtt import NOBODY, Connect, Message, Peer
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Group, Product
from provisioning.model.spec import Spec
from provisioning.protocols.tencent import mqtt_wire, rows, wire
from provisioning.protocols.tencent.gateway import GatewayDesk
from provisioning.protocols.tencent.mqtt_wire import GATEWAY
from provisioning.sections import Tencent as Settings

if TYPE_CHECKING:
    from aiohttp import web

    from provisioning.protocols.tencent.http import Operations
    from provisioning.web.operation import Handler

CLOSE: Final = Answer(close=True)


class Tencent:
    """The protocol as the rest of the house sees it, and the conduct of its sessions.

    `gateways`: who serves the messages of gateways; None: nobody, they are not answered.
    """

    name = wire.PROTOCOL
    forms = rows.FORMS

    def __init__(
        self, settings: Settings, gateways: Gateways | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._desk = GatewayDesk(gateways, freshness=settings.bind_freshness, clock=clock) if gateways else None
        self._limits = SessionLimits(
            wills=False, retained=False, filters=1, up=settings.messages_up, down=settings.messages_down,
            stored=settings.max_stored, interval=settings.connect_interval,
        )  # fmt: skip

    # --- the protocol ---

    @cached_property
    def _http(self) -> "Operations":
        from provisioning.protocols.tencent.http import Operations  # noqa: PLC0415 - for who serves: commands do without

        return Operations(self._settings)

    def routes(self) -> "Iterable[web.RouteDef]":
        """All but `register`, whose path is shared."""
        return self._http.routes()

    def register(self) -> "Handler":
        return self._http.register()

    def read_user(self, name: str) -> Identity | None:
        return mqtt_wire.read_identity(name)

    def read_row(self, row: dict[str, object]) -> Spec:
        return rows.read_row(row)

    def write_row(self, thing: Product | Group | Device) -> dict[str, object]:
        return rows.write_row(thing)

    def read_connect(self, connect: Connect, _peer: Peer = NOBODY) -> LoginClaim | None:
        """MQTT 3.1.1 is the vendor's; 3.1 comes from old firmware, 5 is accepted for others."""
        user = mqtt_wire.read_user(connect.username or "")
        identity = mqtt_wire.read_identity(user.name) if user else None
        if user is None or identity is None or connect.username is None:
            return None
        if connect.client_id != user.name:
            raise Refusal(Reason.MALFORMED, field="clientId", rule="is not the user name's first part")
        if connect.keepalive > self._settings.max_keepalive:
            raise Refusal(Reason.UNSUPPORTED, keepalive=connect.keepalive)
        if user.is_expired(int(self._clock())):
            raise Refusal(Reason.STALE, expiry=user.expiry)
        return mqtt_wire.MqttClaim(identity, connect.username, connect.password or b"")

    def admit(self, claim: LoginClaim, credential: Credential) -> Admission:
        assert credential.device is not None
        return Admission(
            identity=claim.identity, device_id=credential.device.id, epoch=credential.device.epoch,
            rights=mqtt_wire.Topics(mqtt_wire.name_of(claim.identity)), conduct=self,
            max_payload=self._settings.max_payload, limits=self._limits,
        )  # fmt: skip

    def reject(self, reason: Reason) -> Rejection:
        codes = mqtt_wire.CONNACKS[reason]
        return Rejection(reason=reason, code=codes.v3, code5=codes.v5)

    # --- the conduct of its sessions ---

    def on_message(self, identity: Identity, message: Message) -> Answer | Awaitable[Answer]:
        """What goes to `$shadow` and `$ota` is for services that are not here."""
        if self._desk is None or not message.topic.startswith(GATEWAY):
            return NOTHING
        return self._desk.answer(identity, message)

    def on_forbidden(self, identity: Identity, message: Message) -> Answer:  # noqa: ARG002
        return CLOSE

    def on_oversize(self, identity: Identity, message: Message) -> Answer:  # noqa: ARG002
        return CLOSE

    def throttled(self, identity: Identity) -> Message | None:  # noqa: ARG002 - the vendor has no words
        return None

    def farewell(self, identity: Identity, reason: Reason) -> Notice | None:  # noqa: ARG002 - the vendor has no words
        return None
