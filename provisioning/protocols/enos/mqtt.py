"""EnOS over MQTT: from CONNECT to claim, from claim to admission, and what the cloud answers to messages."""

import re
import time
from typing import TYPE_CHECKING

from provisioning.core.generate import HOUSE
from provisioning.core.login import LoginClaim, Means
from provisioning.model.admission import NOTHING, Admission, Answer, Notice, Push, Rejection
from provisioning.model.credential import Credential
from provisioning.model.identity import Identity
from provisioning.model.mqtt import NOBODY, Connect, Message, Peer
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Group, Product
from provisioning.model.spec import Spec
from provisioning.protocols.enos import mqtt_wire, rows, wire
from provisioning.sections import Enos as Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp import web

LEVELS = frozenset({4, 5})
"""MQTT 3.1.1 is the vendor's; 5 is accepted for others."""


MILLISECONDS = re.compile(r"([0-9]{1,15})(\.[0-9]*)?")
"""Since the epoch; one SDK sends a fraction."""


class Enos:
    """The protocol as the rest of the house sees it, and the conduct of its sessions."""

    name = wire.PROTOCOL
    forms = HOUSE

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._methods = frozenset(settings.allowed_signmethods)

    # --- the protocol ---

    def routes(self) -> "Iterable[web.RouteDef]":
        from provisioning.protocols.enos import certificates, http  # noqa: PLC0415 - for who serves: commands do without

        always_200 = self._settings.error_http_status == "always200"
        return (*http.routes(always_200=always_200), *certificates.routes(always_200=always_200))

    def read_user(self, name: str) -> Identity | None:
        return mqtt_wire.read_user(name)

    def read_row(self, row: dict[str, object]) -> Spec:
        return rows.read_row(row)

    def write_row(self, thing: Product | Group | Device) -> dict[str, object]:
        return rows.write_row(thing)

    def read_connect(self, connect: Connect, _peer: Peer = NOBODY) -> LoginClaim | None:
        if connect.username is None or "&" not in connect.username:
            return None
        if connect.level not in LEVELS:
            raise Refusal(Reason.UNSUPPORTED_VERSION)
        device, _, product = connect.username.rpartition("&")
        client_id = mqtt_wire.read_client_id(connect.client_id)
        if client_id.signmethod not in self._methods:
            raise wire.malformed("signmethod")
        if not (wire.KEY.fullmatch(device) and wire.KEY.fullmatch(product)):
            raise Refusal(Reason.NOT_PROVEN)
        if self._settings.login_freshness and not _is_fresh(client_id.timestamp, self._settings.login_freshness):
            raise Refusal(Reason.STALE)
        return mqtt_wire.MqttClaim(Identity(self.name, product, device), client_id, connect.password or b"")

    def admit(self, claim: LoginClaim, credential: Credential) -> Admission:
        device, identity = credential.device, credential.identity
        assert device is not None
        push = None
        if claim.means is Means.PRODUCT:
            topic = mqtt_wire.activation_topic(identity)
            push = Push(
                message=Message(topic, mqtt_wire.write_activation(identity, device.asset, device.secret), qos=1),
                reply_topic=mqtt_wire.reply_to(topic), accepts=mqtt_wire.acknowledges, delay=self._settings.push_delay,
                interval=self._settings.push_interval, repeats=self._settings.push_repeats,
            )  # fmt: skip
        return Admission(
            identity=identity, device_id=device.id, epoch=device.epoch,
            rights=mqtt_wire.rights(identity), conduct=self,
            max_payload=self._settings.max_payload, push=push, once=self._settings.activation_strict,
        )  # fmt: skip

    def reject(self, reason: Reason) -> Rejection:
        codes = mqtt_wire.CONNACKS[reason]
        return Rejection(reason=reason, code=codes.v3, code5=codes.v5)

    # --- the conduct of its sessions ---

    def on_message(self, identity: Identity, message: Message) -> Answer:
        reply = mqtt_wire.answer_report(identity, message.topic, message.payload)
        if reply is None:
            return NOTHING
        return Answer(reply=Message(mqtt_wire.reply_to(message.topic), reply, qos=message.qos))

    def on_forbidden(self, identity: Identity, message: Message) -> Answer:  # noqa: ARG002
        return _error(message, mqtt_wire.FORBIDDEN)

    def on_oversize(self, identity: Identity, message: Message) -> Answer:  # noqa: ARG002
        return _error(message, mqtt_wire.TOO_LARGE)

    def throttled(self, identity: Identity) -> Message | None:  # noqa: ARG002 - the vendor has no words
        return None

    def farewell(self, identity: Identity, reason: Reason) -> Notice | None:
        command = mqtt_wire.COMMANDS.get(reason)
        if command is None:
            return None
        topic, payload = mqtt_wire.write_command(identity, command)
        return Notice(Message(topic, payload), mqtt_wire.reply_to(topic), self._settings.farewell_timeout)


def _error(message: Message, error: tuple[int, str]) -> Answer:
    """To the publisher itself: it cannot subscribe to the reply of a topic that is not its own."""
    reply = mqtt_wire.write_reply(mqtt_wire.peek_id(message.payload), *error)
    return Answer(reply=Message(mqtt_wire.reply_to(message.topic), reply))


def _is_fresh(timestamp: str, seconds: int) -> bool:
    moment = MILLISECONDS.fullmatch(timestamp)
    return moment is not None and abs(time.time() - int(moment[1]) / 1000) <= seconds
