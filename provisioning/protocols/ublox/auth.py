"""Authentication: APIKey and APISecret, or a RefreshToken, for an AuthToken. Contract: sections 2 and 4.1."""

from dataclasses import dataclass, field
from typing import NotRequired, TypedDict

from pydantic import Field

from provisioning.core import accounts
from provisioning.protocols.ublox import wire
from provisioning.protocols.ublox.call import Call
from provisioning.protocols.ublox.reading import Form, Text


class Authenticate(Form):
    key: Text = Field(alias="APIKey")
    secret: Text = Field(alias="APISecret", repr=False)


class Refresh(Form):
    key: Text = Field(alias="APIKey")
    token: Text = Field(alias="RefreshToken", repr=False)


@dataclass(frozen=True, slots=True)
class Granted:
    auth_token: str = field(repr=False)
    refresh_token: str | None = field(default=None, repr=False)


class Tokens(TypedDict):
    AuthToken: str
    RefreshToken: NotRequired[str]


async def authenticate(call: Call, asked: Authenticate) -> Granted:
    account = await accounts.prove(call.tx, wire.PROTOCOL, asked.key, asked.secret)
    refresh_token = await accounts.give_refresh_token(call.tx, account, now=call.now)
    return Granted(call.access.issue(account, now=call.now), refresh_token)


async def refresh(call: Call, asked: Refresh) -> Granted:
    account = await accounts.refresh(call.tx, wire.PROTOCOL, asked.key, asked.token, now=call.now)
    return Granted(call.access.issue(account, now=call.now))


def write_tokens(granted: Granted) -> Tokens:
    """A refresh has no new RefreshToken: the old one goes on to its end."""
    if granted.refresh_token is None:
        return {"AuthToken": granted.auth_token}
    return {"AuthToken": granted.auth_token, "RefreshToken": granted.refresh_token}
