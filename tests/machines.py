"""Modules of the u-blox protocol for tests: their side of the device interface, by no code of the product."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.ublox import ROOT_SECRET, Answer, Client, Clock, sign


@dataclass
class Machine:
    """One module. It acknowledges by its next heartbeat what it was told by the last answer."""

    client: Client
    uid: str
    clock: Clock
    secret: bytes = ROOT_SECRET
    counter: int = 0
    told: list[dict[str, Any]] = field(default_factory=list)
    """Commands of the last answer."""

    async def send(self, path: str, body: dict[str, Any]) -> Answer:
        """With its Mac."""
        return await self.post(path, sign(body, self.uid, self.secret))

    async def post(self, path: str, body: object) -> Answer:
        """As it is."""
        data = json.dumps(body).encode()
        return await self.client.send(path, data, headers={"Content-Type": "application/json"})

    def bootstrap_body(self, at: datetime | None = None, **stated: object) -> dict[str, Any]:
        """`at`: by the module's own clock."""
        now = at or self.clock()
        return {"ROTPublicUID": self.uid, "Timestamp": now.isoformat(), "Nonce": f"n{now.timestamp():.0f}"} | stated

    async def bootstrap(self, **stated: object) -> dict[str, Any]:
        """The reply, which must be 200."""
        return self._hear(await self.send("/device/v1/bootstrap", self.bootstrap_body() | stated))

    async def try_beat(self, **stated: object) -> Answer:
        """A heartbeat that acknowledges what it was told, unless stated otherwise."""
        self.counter += 1
        applied = [{"Id": each["Id"], "Command": each["Command"], "Result": "OK"} for each in self.told]
        body = {"ROTPublicUID": self.uid, "Counter": self.counter, "Applied": applied} | stated
        return await self.send("/device/v1/heartbeat", body)

    async def beat(self, **stated: object) -> list[dict[str, Any]]:
        """The commands of the reply, which must be 200."""
        commands: list[dict[str, Any]] = self._hear(await self.try_beat(**stated))["Commands"]
        return commands

    def _hear(self, answer: Answer) -> dict[str, Any]:
        assert answer.status == 200, f"{self.uid}: {answer}"
        self.told = answer.body["Commands"]
        reply: dict[str, Any] = answer.body
        return reply

    def names(self) -> list[str]:
        """Of the commands of the last answer."""
        return [each["Command"] for each in self.told]
