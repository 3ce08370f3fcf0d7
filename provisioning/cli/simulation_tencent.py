"""Simulated Tencent devices: real clients over the wire, strict about every answer.

Each takes these steps:

    register     POST /device/register -> the psk, out of the encrypted payload; once more: the same
    login        CONNECT with the psk, its first
    post         a message on its own topic `data`, which comes back to it
    again        another registration: what the policy for devices that have connected says
"""

import base64
import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import aiomqtt

from provisioning.cli.sign_tencent import signed_login, signed_registration
from provisioning.cli.simulation import QUOTED, SUCCESS, Stage, WrongAnswerError, enter, leave, payload_of
from provisioning.model.refusal import Reason
from provisioning.protocols.tencent import payload
from provisioning.protocols.tencent.answers import REFUSALS

STEPS: Final = ("register", "login", "post", "again")
LOGIN_SECONDS: Final = 3_600
PSK_BYTES: Final = 16
DENIED: Final = REFUSALS[Reason.ACTIVATION_SPENT]

Policy = Literal["deny", "same", "rotate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where the service is, and with what the devices prove themselves."""

    http: str
    """Base URL."""
    mqtt: tuple[str, int]
    product: str
    secret: str = field(repr=False)
    again: Policy
    """What a device that has connected gets when it registers again."""

    async def live(self, stage: Stage, name: str) -> None:
        """Raises: WrongAnswerError."""
        await Player(self, stage, name).live()


class Player:
    """One device."""

    def __init__(self, plan: Plan, stage: Stage, name: str) -> None:
        self._plan = plan
        self._stage = stage
        self._timed = stage.report.timed
        self._name = name
        self._psk = ""

    async def live(self) -> None:
        async with self._stage.step("register"):
            for _ in ("at first", "as if the answer were lost"):
                with self._timed("register"):
                    answer = await self._stage.whole(self._ask())
                psk = read_psk(answer, self._plan.secret)
                if self._psk and psk != self._psk:
                    raise WrongAnswerError("another key, and the device has not connected yet")
                self._psk = psk
        client = await self._login()
        try:
            await self._post(client)
        finally:
            await leave(client)
        async with self._stage.step("again"):
            with self._timed("again"):
                answer = await self._ask()
            check_again(answer, self._plan.again, product_secret=self._plan.secret, psk=self._psk)

    async def _ask(self) -> Any:
        """What a registration is answered; every answer has HTTP status 200, errors too."""
        plan = self._plan
        asked = signed_registration(
            plan.http, plan.product, self._name, plan.secret, timestamp=int(time.time()),
            nonce=secrets.randbelow(2**31),
        )  # fmt: skip
        async with self._stage.http.post(asked.url, data=asked.body.encode(), headers=asked.headers) as response:
            status, answer = response.status, await response.json(content_type=None)
        if not isinstance(answer, dict):
            raise WrongAnswerError(f"HTTP {status}: no JSON object")
        if status != SUCCESS and "code" not in answer:
            raise WrongAnswerError(f"HTTP {status}: {str(answer)[:QUOTED]}")
        return answer

    async def _login(self) -> aiomqtt.Client:
        plan = self._plan
        login = signed_login(
            plan.product, self._name, self._psk, connection=secrets.token_hex(3)[:5],
            expiry=int(time.time()) + LOGIN_SECONDS, method="hmacsha256",
        )  # fmt: skip
        async with self._stage.step("login"):
            client = self._stage.client(plan.mqtt, login.client_id, login.username, login.password)
            with self._timed("login"):
                await enter(client, plan.mqtt)
        return client

    async def _post(self, client: aiomqtt.Client) -> None:
        topic = f"{self._plan.product}/{self._name}/data"
        sent = json.dumps({"temp": 21.5, "id": secrets.token_hex(8)}).encode()
        async with self._stage.step("post"):
            await client.subscribe(topic, qos=1)
            with self._timed("post"):
                await client.publish(topic, sent, qos=1)
                message = await anext(aiter(client.messages))
            if (str(message.topic), payload_of(message)) != (topic, sent):
                raise WrongAnswerError(f"what came back is {payload_of(message)[:QUOTED]!r} on {message.topic}")


def check_again(answer: Any, policy: Policy, *, product_secret: str, psk: str) -> None:
    """Of a device that has connected with `psk`. Raises: as `read_psk`."""
    if policy == "deny":
        if answer.get("code") != DENIED.code:
            raise WrongAnswerError(f"{said(answer)} in place of {DENIED.code} {DENIED.words}")
        if "Payload" in answer.get("Response", {}):
            raise WrongAnswerError("a refusal with a payload")
    elif (read_psk(answer, product_secret) == psk) is not (policy == "same"):
        raise WrongAnswerError(f"{'another' if policy == 'same' else 'the same'} key, and the policy is {policy}")


def said(answer: Any) -> str:
    """An error, or that it is none."""
    return f"{answer['code']} {answer.get('message')}"[:QUOTED] if "code" in answer else "a success"


def read_psk(answer: Any, product_secret: str) -> str:
    """The key in an answer. Its form is as narrow as real clients are.

    Raises:
        WrongAnswerError, ValueError, KeyError, TypeError: there is none, or they could not read it.
    """
    if "code" in answer:
        raise WrongAnswerError(said(answer))
    response = answer["Response"]
    if list(response) != ["Len", "Payload", "RequestId"]:
        raise WrongAnswerError(f"the answer has the fields {str(list(response))[:QUOTED]}")
    plaintext = payload.decrypt(payload.Payload(response["Payload"], response["Len"]), product_secret)
    psk = json.loads(plaintext)["psk"]
    if plaintext != payload.write_psk(psk) or len(base64.b64decode(psk, validate=True)) != PSK_BYTES:
        raise WrongAnswerError("the payload is not of the form that clients read")
    return str(psk)
