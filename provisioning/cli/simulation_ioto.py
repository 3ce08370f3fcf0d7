"""Simulated Ioto agents: real clients over the wire, strict about every answer.

Each takes these steps:

    register    POST device/register: nobody has claimed the device, exactly one node
    (claim)     as an administrator does it
    token       the same call, and the token in its answer
    get_certs   a certificate with its key, and where to go with it
    connect     CONNECT by the certificate alone; what agents subscribe and publish to
    checkin     an update, or none
"""

import asyncio
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from tempfile import NamedTemporaryFile
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from provisioning.cli.simulation import QUOTED, SUCCESS, Stage, WrongAnswerError, enter, leave
from provisioning.core import pki
from provisioning.core.importing import words
from provisioning.model.refusal import Refusal
from provisioning.protocols.ioto import mqtt, wire

STEPS: Final = ("register", "token", "get_certs", "connect", "checkin")
KEEPALIVE: Final = 1_200
"""Seconds."""
ALPN: Final = "x-amzn-mqtt-ca"
OFFER: Final = {"checksum", "version", "url", "update"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where the service is, and with what the devices prove themselves."""

    http: str
    """Base URL."""
    mqtts: tuple[str, int] | None
    """None: where the answer to get_certs sends them."""
    anchors: str
    """PEM: the authorities in the agents' configuration."""
    token: str = field(repr=False)
    """Of the product."""
    claim: Callable[[str], Awaitable[None]]
    """Gives a device, by its id, to an account."""

    async def live(self, stage: Stage, name: str) -> None:
        """Raises: WrongAnswerError."""
        await Player(self, stage, name).live()


class Towards(ssl.SSLContext):
    """Expects the server of one name, whatever address stands for it."""

    server_name: str | None = None

    def wrap_socket(self, sock: socket.socket, *args: Any, **more: Any) -> ssl.SSLSocket:
        return super().wrap_socket(sock, *args, **more | {"server_hostname": self.server_name})


@dataclass(frozen=True, slots=True)
class Given:
    """What an agent connects with."""

    address: tuple[str, int]
    context: ssl.SSLContext
    account: str


class Player:
    """One device."""

    def __init__(self, plan: Plan, stage: Stage, name: str) -> None:
        self._plan = plan
        self._stage = stage
        self._timed = stage.report.timed
        self._name = name

    async def live(self) -> None:
        await self._register()
        token = await self._token()
        given = await self._certificate(token)
        await self._connect(given)
        await self._checkin(token)

    async def _register(self) -> None:
        async with self._stage.step("register"):
            if (answer := await self._say_hello("register")) != {"registered": True}:
                raise WrongAnswerError(f"nobody has claimed it, and the answer has {fields_of(answer)}")
            try:
                await self._plan.claim(self._name)
            except Refusal as refusal:  # such as: the service has another registry than we
                raise WrongAnswerError(f"it cannot be claimed: {words(refusal)}"[:QUOTED]) from refusal

    async def _token(self) -> str:
        async with self._stage.step("token"):
            token = (await self._say_hello("token")).get("token")
            if not isinstance(token, str):
                raise WrongAnswerError("a claimed device got none")
            return token

    async def _say_hello(self, step: str) -> dict[str, Any]:
        plan = self._plan
        body = {"id": self._name, "product": plan.token, "name": "Simulated", "model": "sim"}
        return await self._post(step, "/api/device/register", body, plan.token)

    async def _certificate(self, token: str) -> Given:
        async with self._stage.step("get_certs"):
            answer = await self._post("get_certs", "/tok/provision/getCerts", {"id": self._name}, token)
            check_certificate(answer, self._name)
            context = await asyncio.to_thread(context_of, answer, self._plan.anchors)
            address = self._plan.mqtts or (answer["endpoint"], answer["port"])
            return Given(address, context, str(answer["accountId"]))

    async def _connect(self, given: Given) -> None:
        """As agents do: clean session 0, neither user name nor password."""
        name = self._name
        async with self._stage.step("connect"):
            client = self._stage.client(
                given.address, name, tls_context=given.context, clean_session=False, keepalive=KEEPALIVE
            )
            with self._timed("connect"):
                await enter(client, given.address)
            try:
                for topics in (f"ioto/device/{name}/#", "ioto/account/all/#", f"ioto/account/{given.account}/#"):
                    codes = await client.subscribe(topics, qos=1)
                    if [getattr(code, "value", code) for code in codes] != [1]:
                        raise WrongAnswerError(f"it may not subscribe to {topics}")
                await client.publish(f"ioto/service/{name}/sim", json.dumps({"temp": 21.5}), qos=1)
            finally:
                await leave(client)

    async def _checkin(self, token: str) -> None:
        async with self._stage.step("checkin"):
            body = {"id": self._name, "version": "0.0.1"}
            answer = await self._post("checkin", "/tok/provision/update", body, token)
            if not (answer.keys() >= OFFER or answer.keys() == {"message"}):
                raise WrongAnswerError(f"neither an update nor none: the answer has {fields_of(answer)}")

    async def _post(self, step: str, path: str, body: Mapping[str, object], token: str) -> dict[str, Any]:
        with self._timed(step):
            status, text = await self._stage.whole(self._ask(path, body, token))
        if status != SUCCESS:
            raise WrongAnswerError(f"HTTP {status}: {text[:QUOTED]}")
        answer = json.loads(text)
        if not isinstance(answer, dict):
            raise WrongAnswerError("no JSON object")
        return answer

    async def _ask(self, path: str, body: Mapping[str, object], token: str) -> tuple[int, str]:
        headers = {"Authorization": f"bearer {token}"}
        async with self._stage.http.post(self._plan.http + path, json=body, headers=headers) as response:
            return response.status, await response.text()


def fields_of(answer: dict[str, Any]) -> str:
    """Names alone: the values may be secrets."""
    return ", ".join(sorted(answer))[:QUOTED] or "no fields"


def check_certificate(answer: dict[str, Any], name: str) -> None:
    """Raises: WrongAnswerError, when an agent could not connect with this."""
    try:
        leaf = x509.load_pem_x509_certificate(str(answer.get("certificate")).encode())
        key = pki.read_key(str(answer.get("key")), ours=True)
    except (Refusal, ValueError) as error:
        raise WrongAnswerError(f"certificate or key cannot be read: {error}"[:QUOTED]) from error
    named = mqtt.read_certificate(leaf.public_bytes(Encoding.DER))
    port = answer.get("port")
    wrong = {
        "the key is not that of the certificate": key.public_key() != leaf.public_key(),
        "the certificate is another device's": named is None or named[1] != name,
        "the endpoint is no DNS name": not wire.is_dns_name(str(answer.get("endpoint"))),
        "there is no port": isinstance(port, bool) or not isinstance(port, int),
        "there is no account": not isinstance(answer.get("accountId"), str),
    }
    if said := next((said for said, holds in wrong.items() if holds), None):
        raise WrongAnswerError(said)


def context_of(answer: dict[str, Any], anchors: str) -> ssl.SSLContext:
    """Shows the certificate; takes a server that has the endpoint's name, by one of `anchors`. Blocks."""
    context = Towards(ssl.PROTOCOL_TLS_CLIENT)
    context.server_name = answer["endpoint"]
    context.load_verify_locations(cadata=anchors)
    context.set_alpn_protocols([ALPN])
    with NamedTemporaryFile("w", suffix=".pem") as file:  # ssl reads keys from files alone; this one is ours to read
        file.write(answer["key"] + answer["certificate"])
        file.flush()
        context.load_cert_chain(file.name)
    return context
