"""Tokens: contract, section 2."""

from provisioning.app import Running
from tests.ublox import KEY, SECRET, Client, client, make_account


async def test_key_and_secret_give_both_tokens(running: Running) -> None:
    await make_account(running.database)
    async with client(running) as found:
        reply = await found.ok("/authenticate", {"APIKey": KEY, "APISecret": SECRET})
    assert list(reply) == ["AuthToken", "RefreshToken"]


async def test_the_refresh_token_gives_another_auth_token_alone(api: Client) -> None:
    reply = await api.ok("/refreshauthtoken", {"APIKey": KEY, "RefreshToken": api.refresh_token})
    assert list(reply) == ["AuthToken"]
