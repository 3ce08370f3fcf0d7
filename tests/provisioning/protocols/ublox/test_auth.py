"""Tokens: contract, section 2. What a token is made of, and who forges one in vain: tests/provisioning/core."""

import asyncio
import json
from typing import Any

import jwt
import pytest
from structlog.testing import capture_logs

from provisioning.app import Running
from provisioning.core import accounts
from provisioning.core.rates import Rates
from provisioning.model.account import Account
from provisioning.protocols.ublox.vendor import Ublox
from provisioning.protocols.ublox.wire import PROTOCOL
from tests.ublox import KEY, OTHER_KEY, SECRET, Client, Clock, client, make_account

pytestmark = pytest.mark.server

ASKED = "/apiversion"
"""Any operation that asks for a token alone."""
NOT_AUTHORIZED = {"message": "Not Authorized."}


async def status(api: Client, authorization: str | None, path: str = f"/v1{ASKED}") -> int:
    """Of an answer that says nothing but `Not Authorized.` when it is 401."""
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = await api.send(path, b"{}", headers=headers | {"Content-Type": "application/json"})
    if answer.status == 401:
        assert answer.body == NOT_AUTHORIZED
    return answer.status


async def rotate(running: Running, account: Account, secret: str) -> None:
    async with running.database.begin() as tx:
        await accounts.rotate(tx, account, PROTOCOL, accounts.hash_secret(secret))


async def delete(running: Running) -> None:
    async with running.database.begin() as tx:
        await accounts.delete(tx, PROTOCOL, KEY, cascade=True, now=running.world.clock())


@pytest.mark.usefixtures("account")
async def test_key_and_secret_give_both_tokens_and_nothing_else_does(running: Running) -> None:
    good = {"APIKey": KEY, "APISecret": SECRET}
    async with client(running) as api:
        for version in ("/v1", ""):
            found = await api.post("/authenticate", good | {"More": 1}, version=version)
            assert (found.status, list(found.body)) == (200, ["AuthToken", "RefreshToken"])
        unknown = await api.post("/authenticate", good | {"APIKey": OTHER_KEY})
        wrong = await api.post("/authenticate", good | {"APISecret": SECRET[::-1]})
        assert (unknown.status, unknown.body) == (wrong.status, wrong.body) == (401, NOT_AUTHORIZED)
        bodies: list[object] = [{"APIKey": KEY}, {"APISecret": SECRET}, {}, [], good | {"APIKey": None}]
        for lacking in bodies:
            answer = await api.post("/authenticate", lacking)
            assert answer.status == 400, f"{lacking}: {answer}"
        await api.refused("/authenticate", good | {"APIKey": 7}, 400, "Bad Request. Invalid APIKey")
        assert unknown.headers.keys() - {"Date"} == wrong.headers.keys() - {"Date"}, "no oracle in the header either"


async def test_the_token_may_stand_alone_or_behind_its_scheme_in_any_case(api: Client) -> None:
    token = api.token
    assert token is not None
    other = Client(api.http, api.url)
    for good in (token, f"Bearer {token}", f"bearer {token}", f"bEaReR   {token}", f"  {token} "):
        for path in (f"/v1{ASKED}", ASKED):
            assert await status(other, good, path) == 200, f"{good[:12]} at {path}"
    head, body, signature = token.split(".")
    for bad in (
        None, "", "Bearer", "Bearer ", f"Basic {token}", f"Bearer Bearer {token}", f"{token} x", f"Bearer {token}.x",
        "a.b.c", f"{head}.{body}.", f"{head}.{body}.{signature[:-4]}", "..", f"Bearer\t{token[:-1]}é", "\xff.\xff.\xff",
    ):  # fmt: skip
        assert await status(other, bad) == 401, f"{bad}"


async def test_whoever_reads_the_published_keys_verifies_a_token(running: Running, api: Client) -> None:
    async with api.http.get(f"{api.url}/.well-known/jwks.json") as response:
        assert (response.status, response.content_type) == (200, "application/json")
        keys = jwt.PyJWKSet.from_dict(await response.json())
    assert api.token is not None
    issuer = running.settings.ublox.issuer
    key = keys[jwt.get_unverified_header(api.token)["kid"]]
    claims = jwt.decode(api.token, key, algorithms=["RS256"], audience=issuer, issuer=issuer)
    assert (claims["sub"], claims["token_use"], claims["exp"] - claims["iat"]) == (KEY, "id", 3_600)


@pytest.mark.usefixtures("account")
async def test_a_token_lives_an_hour_and_a_refresh_token_three_days(running: Running) -> None:
    clock = Clock()
    clock.set_on(running)
    other = await make_account(running.database, OTHER_KEY)
    async with client(running) as api:
        await api.authenticate()
        again = {"APIKey": KEY, "RefreshToken": api.refresh_token}
        clock.move(seconds=3_599)
        assert (await api.post(ASKED)).status == 200
        clock.move(seconds=1)
        await api.refused(ASKED, {}, 401, "Not Authorized.")
        clock.move(days=3, seconds=-3_601)
        reply = await api.ok("/refreshauthtoken", again)
        assert list(reply) == ["AuthToken"], "the refresh token goes on to its end"
        api.token = reply["AuthToken"]
        assert (await api.post(ASKED)).status == 200
        await api.refused("/refreshauthtoken", again | {"APIKey": other.key}, 401, "Not Authorized.")
        await api.refused("/refreshauthtoken", again | {"APIKey": "nobody"}, 401, "Not Authorized.")
        await api.refused("/refreshauthtoken", again | {"RefreshToken": api.token}, 401, "Not Authorized.")
        await api.refused("/refreshauthtoken", {"APIKey": KEY}, 400, "Bad Request")
        clock.move(seconds=2)
        await api.refused("/refreshauthtoken", again, 401, "Not Authorized.")
        assert (await api.post(ASKED)).status == 200, "what it gave before lives on"


async def test_a_new_secret_ends_all_tokens_at_once(running: Running, account: Account, api: Client) -> None:
    refresh = {"APIKey": KEY, "RefreshToken": api.refresh_token}
    assert (await api.post(ASKED)).status == 200
    await rotate(running, account, "another secret of it")
    await api.refused(ASKED, {}, 401, "Not Authorized.")
    await api.refused("/refreshauthtoken", refresh, 401, "Not Authorized.")
    await api.refused("/authenticate", {"APIKey": KEY, "APISecret": SECRET}, 401, "Not Authorized.")
    await api.authenticate(secret="another secret of it")
    assert (await api.post(ASKED)).status == 200


async def test_a_deleted_account_has_no_tokens_not_even_when_its_key_comes_back(
    running: Running, account: Account, api: Client
) -> None:
    refresh = {"APIKey": KEY, "RefreshToken": api.refresh_token}
    await delete(running)
    for again in (False, True):
        await api.refused(ASKED, {}, 401, "Not Authorized.")
        await api.refused("/refreshauthtoken", refresh, 401, "Not Authorized.")
        if not again:
            assert (await make_account(running.database)).id != account.id


async def test_twenty_calls_a_second(running: Running, account: Account, api: Client) -> None:
    """For each account, whatever others do; and nobody takes another's turns without a token of its present secret."""
    (vendor,) = (each for each in running.protocols if isinstance(each, Ublox))
    vendor._operations.rates = Rates(20, clock=lambda: 0.0)
    stale = Client(api.http, api.url, api.token)
    await make_account(running.database, OTHER_KEY)
    await rotate(running, account, SECRET)
    await api.authenticate()
    for _ in range(25):
        assert (await stale.post(ASKED)).status in {401, 429}
    guesses = [await api.post("/authenticate", {"APIKey": KEY, "APISecret": f"guess {n}"}) for n in range(20)]
    assert [answer.status for answer in guesses] == [401] * 19 + [429], "one turn was taken before"
    assert guesses[-1].body == {"message": "Too Many Requests"}
    assert [(await api.post(ASKED)).status for _ in range(21)] == [200] * 20 + [429]
    marked = await api.post("/device/whitelist/add", {})
    assert (marked.status, marked.body) == (429, {"message": "Too Many Requests"})
    async with client(running) as other:
        await other.authenticate(OTHER_KEY)
        assert (await other.post(ASKED)).status == 200


@pytest.mark.usefixtures("account")
async def test_many_authenticate_at_once_when_keys_are_due(running: Running) -> None:
    """None waits for a connection while it holds one."""
    clock = Clock()
    clock.set_on(running)
    async with client(running) as api:
        body = {"APIKey": KEY, "APISecret": SECRET}
        for _ in range(2):
            clock.move(seconds=61)
            answers = await asyncio.gather(*(api.post("/authenticate", body) for _ in range(40)))
            assert {answer.status for answer in answers} == {200}


@pytest.mark.usefixtures("account")
async def test_logs_name_the_account_and_no_secret(running: Running) -> None:
    secrets: list[Any] = [SECRET]
    with capture_logs() as lines:
        async with client(running) as api:
            await api.authenticate()
            secrets += [api.token, api.refresh_token]
            await api.ok("/refreshauthtoken", {"APIKey": KEY, "RefreshToken": api.refresh_token})
            await api.ok(ASKED)
            await api.post("/authenticate", {"APIKey": SECRET, "APISecret": KEY})  # the wrong way round
            await api.post("/authenticate", {"APIKey": KEY, "APISecret": SECRET + "x"})
            await api.post("/refreshauthtoken", {"APIKey": KEY, "RefreshToken": api.token})
            await api.post("/authenticate", {"APIKey": KEY, "APISecret": [SECRET]})
            async with api.http.get(f"{api.url}/v1{ASKED}?token={api.token}") as response:
                assert response.status == 401
    told = [
        (line["event"], line["outcome"], line.get("account")) for line in lines if line["event"].startswith("http.")
    ]
    assert told == [
        ("http.authenticate", "accepted", KEY), ("http.refreshauthtoken", "accepted", KEY),
        ("http.apiversion", "accepted", KEY), ("http.authenticate", "refused", None),
        ("http.authenticate", "refused", KEY), ("http.refreshauthtoken", "refused", None),
        ("http.authenticate", "refused", None), ("http.apiversion", "refused", None),
    ]  # fmt: skip
    text = json.dumps(lines, default=str)
    assert not [secret for secret in secrets if secret in text]
