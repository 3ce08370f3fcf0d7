"""Simulated EnOS devices: real clients over the wire, strict about every answer.

Half of a fleet takes each road of a device to its secret:

    bootstrap    HTTP bootstrap -> login with its own secret -> a measurement, and its reply 200
    activation   login with the product's secret -> the pushed secret, acknowledged -> login, measurement as above
"""

import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

import aiomqtt

from provisioning.cli.sign import Login, measurement, now_ms, post_topic, signed_bootstrap, signed_login
from provisioning.cli.simulation import (
    QUOTED,
    SUCCESS,
    Stage,
    WrongAnswerError,
    connected,
    enter,
    leave,
    payload_of,
)
from provisioning.model.identity import Identity
from provisioning.protocols.enos import mqtt_wire, wire

STEPS: Final = ("bootstrap", "activation", "login", "post")


class Road(StrEnum):
    BOOTSTRAP = "bootstrap"
    ACTIVATION = "activation"


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
    roads: Mapping[str, Road]
    """The road of each device, by its serial number or key."""

    async def live(self, stage: Stage, name: str) -> None:
        """Raises: WrongAnswerError."""
        await Player(self, stage).live(self.roads[name], name)


class Player:
    """One device."""

    def __init__(self, plan: Plan, stage: Stage) -> None:
        self._plan = plan
        self._stage = stage
        self._timed = stage.report.timed

    async def live(self, road: Road, name: str) -> None:
        if road is Road.BOOTSTRAP:
            identity, secret, address = await self._bootstrap(name)
        else:
            identity, address = Identity(wire.PROTOCOL, self._plan.product, name), self._plan.mqtt
            secret = await self._activate(identity)
        async with self._stage.step("login"):
            client = self._client(signed_login(identity, secret, timestamp=str(now_ms())), address)
            with self._timed("login"):
                await enter(client, address)
        try:
            await self._post(client, identity)
        finally:
            await leave(client)

    def _client(self, login: Login, address: tuple[str, int]) -> aiomqtt.Client:
        return self._stage.client(address, login.client_id, login.username, login.password)

    async def _bootstrap(self, serial: str) -> tuple[Identity, str, tuple[str, int]]:
        plan = self._plan
        body = signed_bootstrap(plan.group, serial, plan.password, timestamp=now_ms())
        async with self._stage.step("bootstrap"):
            with self._timed("bootstrap"):
                status, answer = await self._stage.whole(self._ask(f"{plan.http}/2.4.0/bootstrap", body))
            if not isinstance(answer, dict) or status != SUCCESS or "ds" not in answer:
                said = f"{answer.get('code')} {answer.get('msg')}" if isinstance(answer, dict) else "no JSON object"
                raise WrongAnswerError(f"HTTP {status}: {said[:QUOTED]}")
            if not all(
                isinstance(answer.get(name), str) and answer[name] for name in ("murl", "hurl", "pk", "dk", "ds")
            ):
                raise WrongAnswerError("one of murl, hurl, pk, dk, ds is not there")
            return Identity(wire.PROTOCOL, answer["pk"], answer["dk"]), answer["ds"], self._address(answer["murl"])

    async def _ask(self, url: str, body: dict[str, object]) -> tuple[int, Any]:
        async with self._stage.http.post(url, json=body) as response:
            return response.status, await response.json(content_type=None)

    def _address(self, murl: str) -> tuple[str, int]:
        parts = urlsplit(murl)
        if parts.scheme != "tcp" or not parts.hostname or not parts.port or parts.path:
            raise WrongAnswerError(f"murl {murl!r} is not tcp://host:port")
        return (parts.hostname, parts.port) if self._plan.follow else self._plan.mqtt

    async def _activate(self, identity: Identity) -> str:
        """The secret that the service pushes, unasked."""
        login = signed_login(identity, self._plan.secret, timestamp=str(now_ms()), dynamic=True)
        topic = mqtt_wire.activation_topic(identity)
        async with self._stage.step("activation"), AsyncExitStack() as stack:
            with self._timed("activation"):
                client = await stack.enter_async_context(
                    connected(self._client(login, self._plan.mqtt), self._plan.mqtt)
                )
                message = await anext(aiter(client.messages))
            secret = _pushed(message, topic, identity)
            reply = {"id": "1", "code": SUCCESS, "data": None}
            await client.publish(mqtt_wire.reply_to(topic), json.dumps(reply), qos=1)
            return secret

    async def _post(self, client: aiomqtt.Client, identity: Identity) -> None:
        topic, request_id = post_topic(identity), str(now_ms())
        async with self._stage.step("post"):
            await client.subscribe(mqtt_wire.reply_to(topic), qos=1)
            with self._timed("post"):
                await client.publish(topic, measurement(request_id), qos=1)
                async for message in client.messages:
                    if str(message.topic) == mqtt_wire.reply_to(topic):
                        break
            answer = json.loads(payload_of(message))
            if answer["id"] != request_id or answer["code"] != SUCCESS:
                raise WrongAnswerError(f"the reply is {str(answer)[:QUOTED]}")


def _pushed(message: aiomqtt.Message, topic: str, identity: Identity) -> str:
    """The secret in the push. Its form is as narrow as real clients are: compact, and its id is text."""
    payload = payload_of(message)
    if str(message.topic) != topic:
        raise WrongAnswerError(f"a message on {message.topic} came before the secret")
    push: Any = json.loads(payload)
    params = push["params"]
    secret = params["deviceSecret"]
    if (params["productKey"], params["deviceKey"]) != (identity.product, identity.device):
        raise WrongAnswerError("the secret of another device was pushed")
    if not isinstance(secret, str) or payload != mqtt_wire.write_activation(identity, params["assetId"], secret):
        raise WrongAnswerError("the push is not of the form that clients read")
    return secret
