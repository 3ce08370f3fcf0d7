"""Credentials for the cloud of a device's owner: temporary ones by STS AssumeRole, fixed ones, or none.

    async with credentials_provider(settings) as provider:
        found = await provider.credentials(product, device)

Source: AWS STS API reference, AssumeRole.
"""

import asyncio
import hashlib
import json
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from provisioning import sections, settings
from provisioning.model.refusal import Reason, Refusal

if TYPE_CHECKING:
    from provisioning.aws import Aws

AHEAD: Final = timedelta(minutes=30)
"""What devices can rely on; one that is told less asks again at once."""
MARGIN: Final = timedelta(minutes=1)
MOST_KEPT: Final = 10_000
PAUSE: Final = 5.0
"""Seconds for which nobody asks an STS that could not be reached."""
NAME: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")
"""Of products and devices. What else stands in a policy could be a wildcard or a variable there."""
SHORTEST_SESSION: Final = 2
LONGEST_SESSION: Final = 64


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires: datetime
    """At least AHEAD."""
    region: str


class CredentialsProvider(Protocol):
    async def credentials(self, product: str, device: str) -> Credentials:
        """Credentials for the device.

        Raises:
            Refusal: UNSUPPORTED, when the provider is switched off; UNAVAILABLE with `error`, a line for people that
                says what is wrong with AWS; MALFORMED for a name that must not stand in a policy.
        """
        ...


@asynccontextmanager
async def credentials_provider(stated: settings.Settings) -> AsyncIterator[CredentialsProvider]:
    """The provider of the settings."""
    match stated.credentials.provider:
        case "disabled":
            yield Disabled()
        case "static":
            yield Static(stated.credentials, stated.credentials.region or stated.aws.region)
        case "sts":
            from provisioning.aws import Aws  # noqa: PLC0415 - half a second and 20 MiB that most services need not spend

            async with Aws(stated.aws) as aws:
                provider = Sts(aws, stated.credentials)
                try:
                    yield provider
                finally:
                    await provider.close()


class Disabled:
    async def credentials(self, product: str, device: str) -> Credentials:  # noqa: ARG002 - for all alike
        raise Refusal(Reason.UNSUPPORTED, provider="disabled")


class Static:
    """The same credentials for every device."""

    def __init__(self, stated: sections.Credentials, region: str) -> None:
        self._stated = stated
        self._region = region

    async def credentials(self, product: str, device: str) -> Credentials:  # noqa: ARG002 - for all alike
        stated = self._stated
        assert stated.access_key_id is not None
        assert stated.secret_access_key is not None
        return Credentials(
            access_key_id=stated.access_key_id, secret_access_key=stated.secret_access_key.get_secret_value(),
            session_token=stated.session_token.get_secret_value() if stated.session_token else "",
            expires=_now() + timedelta(seconds=stated.duration), region=self._region,
        )  # fmt: skip


class Sts:
    """Temporary credentials of a role, cut down to what the policy gives the device.

    Agents ask every five minutes: what a device has been given is given again as long as it is good for AHEAD.
    """

    def __init__(
        self,
        aws: "Aws",
        stated: sections.Credentials,
        *,
        now: Callable[[], datetime] = _now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._aws = aws
        self._stated = stated
        self._now = now
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], Credentials] = OrderedDict()
        self._asked: dict[tuple[str, str], asyncio.Task[Credentials]] = {}
        self._away: tuple[float, str] = (-PAUSE, "")
        self._role = stated.role if stated.role.startswith("arn:") else ""

    async def credentials(self, product: str, device: str) -> Credentials:
        for name, value in (("product", product), ("device", device)):
            if not NAME.fullmatch(value):
                raise Refusal(Reason.MALFORMED, field=name, rule="must be letters, digits, _ and -, at most 64")
        key = product, device
        kept = self._kept.get(key)
        if kept is not None and kept.expires - self._now() >= AHEAD + MARGIN:
            self._kept.move_to_end(key)
            return kept
        task = self._asked.get(key)
        if task is None:  # of a device that asks twice at once, one request is made
            since, error = self._away
            if self._clock() - since < PAUSE:
                raise Refusal(Reason.UNAVAILABLE, error=error)
            task = self._asked[key] = asyncio.create_task(self._assume(product, device), name="sts")
            task.add_done_callback(lambda done: self._done(key, done))
        return await asyncio.shield(task)

    async def close(self) -> None:
        tasks = tuple(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, key: tuple[str, str], task: asyncio.Task[Credentials]) -> None:
        del self._asked[key]
        if not task.cancelled() and task.exception() is None:
            self._kept[key] = task.result()
            self._kept.move_to_end(key)
            if len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)

    async def _assume(self, product: str, device: str) -> Credentials:
        from provisioning.aws import AwsError  # noqa: PLC0415 - see above

        stated = self._stated
        try:
            sts = await self._aws.client("sts")
            async with self._aws.errors("sts"):
                answer = await sts.assume_role(
                    RoleArn=await self._role_arn(sts), DurationSeconds=stated.duration,
                    RoleSessionName=session_name(stated.session_name, product, device),
                    Policy=policy(stated.policy, product, device),
                )  # fmt: skip
        except AwsError as error:
            if not error.code:
                self._away = self._clock(), str(error)
            raise Refusal(Reason.UNAVAILABLE, error=str(error)) from error
        return self._read(answer["Credentials"])

    async def _role_arn(self, sts: Any) -> str:
        """A role that is stated by its name is one of the account that our own keys belong to."""
        if not self._role:
            _, partition, _, _, account, *_ = str((await sts.get_caller_identity())["Arn"]).split(":")
            self._role = f"arn:{partition}:iam::{account}:role/{self._stated.role}"
        return self._role

    def _read(self, given: dict[str, Any]) -> Credentials:
        found = Credentials(
            access_key_id=given["AccessKeyId"], secret_access_key=given["SecretAccessKey"],
            session_token=given["SessionToken"], expires=given["Expiration"].astimezone(UTC),
            region=self._stated.region or self._aws.region,
        )  # fmt: skip
        if found.expires - self._now() < AHEAD:
            error = "STS gives credentials for less than 30 minutes: are the clocks right?"
            raise Refusal(Reason.UNAVAILABLE, error=error)
        return found


def session_name(template: str, product: str, device: str) -> str:
    """The name of the session of a device, of 2 to 64 characters; one that is too long keeps its head and its hash."""
    name = template.replace("{product}", product).replace("{device}", device)
    if len(name) > LONGEST_SESSION:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        return f"{name[: LONGEST_SESSION - 17]}-{digest}"
    return name if len(name) >= SHORTEST_SESSION else f"device-{name}"


def policy(template: str, product: str, device: str) -> str:
    """The policy of a device's session, without the blanks: AWS counts characters."""
    filled = template.replace("{product}", product).replace("{device}", device)
    return json.dumps(json.loads(filled), separators=(",", ":"))
