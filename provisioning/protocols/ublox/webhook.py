"""Webhooks: which events are posted where. Contract: sections 4.8 and 6. How they leave: `provisioning.outbox`."""

from collections.abc import Sequence
from typing import Annotated, TypedDict

from pydantic import AfterValidator, Field

from provisioning.core import webhooks
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.ublox import refusals, wire
from provisioning.protocols.ublox.call import Call
from provisioning.protocols.ublox.notices import Event
from provisioning.protocols.ublox.reading import Form, Nothing
from provisioning.store import webhooks as store
from provisioning.store.webhooks import Webhook


def _url(value: str) -> str:
    webhooks.host_of(value)
    return value


Url = Annotated[
    str, Field(max_length=webhooks.LONGEST_URL, pattern=webhooks.URL_PATTERN), AfterValidator(_url)
]  # fmt: skip
Token = Annotated[str, Field(max_length=webhooks.LONGEST_TOKEN, pattern=webhooks.TOKEN_PATTERN)]


class Delete(Form):
    url: Url = Field(alias="NotificationURL")


class Update(Delete):
    token: Token = Field(alias="AuthorizationToken", repr=False)


class Create(Update):
    kind: Event = Field(alias="NotificationType", strict=False)


class WebhookItem(TypedDict):
    NotificationURL: str
    NotificationType: str
    CreatedDate: str


async def create(call: Call, asked: Create) -> None:
    """Raises: Refusal MALFORMED, where nothing may be sent; LIMIT_REACHED; DUPLICATE from the transaction."""
    if not webhooks.is_allowed(asked.url, private=call.settings.webhook_private):
        raise refusals.invalid("NotificationURL")
    try:
        await webhooks.create(call.tx, call.account.id, asked.url, asked.kind, asked.token, now=call.now)
    except Refusal as refusal:
        if refusal.reason is not Reason.LIMIT_REACHED:
            raise
        sentence = f"Bad Request. An account has at most {webhooks.MOST} webhooks"
        raise Refusal(Reason.LIMIT_REACHED, message=sentence) from None


async def update(call: Call, asked: Update) -> None:
    """Raises: Refusal UNKNOWN."""
    await webhooks.update(call.tx, call.account.id, asked.url, asked.token)


async def delete(call: Call, asked: Delete) -> None:
    """Raises: Refusal UNKNOWN."""
    await webhooks.delete(call.tx, call.account.id, asked.url)


async def get(call: Call, _: Nothing) -> list[Webhook]:
    return await store.of_account(call.tx, call.account.id)


def write_webhooks(found: Sequence[Webhook]) -> list[WebhookItem]:
    """Never the token."""
    return [
        {"NotificationURL": each.url, "NotificationType": each.kind, "CreatedDate": wire.write_time(each.created_at)}
        for each in found
    ]
