"""What every operation has in common on the wire: paths, methods, media types, sizes, refusals. Contract: section 1."""

import json
from typing import Any

import pytest

from provisioning.app import Running
from provisioning.core import accounts
from provisioning.model.account import Account
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.ublox.auth import Authenticate
from provisioning.protocols.ublox.http import LARGEST_BODY, read_authorization
from provisioning.protocols.ublox.wire import PROTOCOL
from tests.ublox import KEY, OTHER_KEY, SECRET, Answer, Client, client, make_account

pytestmark = pytest.mark.server

JSON = {"Content-Type": "application/json"}
LISTED = "/v1/device/list/get"
SUBSCRIBED = "/v1/ztp/rootca/crl/get"
ASKED = "/v1/apiversion"


def said(answer: Answer) -> tuple[int, Any]:
    return answer.status, answer.body


def authorized(api: Client, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {api.token}"} | {name.replace("_", "-"): value for name, value in more.items()}


async def test_who_asks_comes_before_what_is_asked(running: Running, api: Client) -> None:
    """Without a token there is 401 and nothing else, whatever the rest of the request is."""
    not_authorized = (401, {"message": "Not Authorized."})
    for headers, data in (
        ({}, b""), (JSON, b"{"), ({"Content-Type": "text/plain"}, b""), (JSON, b'{"PageNumber": 0}'),
    ):  # fmt: skip
        assert said(await api.send(LISTED, data, headers=headers)) == not_authorized
        assert said(await api.send("/v1/device/whitelist/add", data, headers=headers)) == not_authorized
    await make_account(running.database, OTHER_KEY, certificates=False)
    async with client(running) as other:
        await other.authenticate(OTHER_KEY)
        await other.ok("/device/list/get")
        for body in ({}, {"CANames": 7}):
            await other.refused("/ztp/rootca/crl/get", body, 401, "Not Authorized.")
        async with running.database.begin() as tx:
            account = await accounts.find(tx, PROTOCOL, OTHER_KEY)
            await accounts.rotate(tx, account, PROTOCOL, accounts.hash_secret("another"))
        for body in ({}, {"PageNumber": 0}):
            await other.refused("/device/list/get", body, 401, "Not Authorized.")
    await api.ok("/ztp/rootca/crl/get")


async def test_media_types(api: Client) -> None:
    for kind in ("application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf8"'):
        assert (await api.send(LISTED, b"{}", headers=authorized(api, Content_Type=kind))).status == 200, kind
    unsupported = (415, {"message": "Unsupported Media Type"})
    wrong = ("", "text/plain", "application/json; charset=latin-1", "application/octet-stream", "application/jsonx")
    for kind in wrong:
        assert said(await api.send(LISTED, b"{}", headers=authorized(api, Content_Type=kind))) == unsupported, kind
    packed = authorized(api, Content_Type="application/json", Content_Encoding="gzip")
    assert said(await api.send(LISTED, b"{}", headers=packed)) == unsupported
    marked = await api.send("/v1/device/whitelist/add", b"{}", headers=authorized(api, Content_Type="text/plain"))
    assert said(marked) == unsupported, "the key is `message` before the operation begins"


async def test_a_body_has_a_mebibyte_at_most(api: Client) -> None:
    headers = authorized(api, **JSON)
    full = b'{"Filter":"ALL","More":"' + b"x" * (LARGEST_BODY - 26) + b'"}'
    assert len(full) == LARGEST_BODY == 2**20
    assert (await api.send(LISTED, full, headers=headers)).status == 200
    too_large = (413, {"message": "Payload Too Large"})
    assert said(await api.send(LISTED, full + b" ", headers=headers)) == too_large
    assert said(await api.send("/v1/device/whitelist/add", full + b" ", headers=headers)) == too_large
    assert said(await api.send("/v1/authenticate", full + b" ", headers=JSON)) == too_large
    bad = full.replace(b"}", b"]")
    assert said(await api.send(LISTED, bad, headers=headers)) == (400, {"message": "Bad Request"}), "a large one, too"
    wrong = full.replace(b"ALL", b"all")
    assert said(await api.send(LISTED, wrong, headers=headers)) == (400, {"message": "Bad Request. Invalid Filter"})


async def test_bodies_that_are_no_object(api: Client) -> None:
    headers = authorized(api, **JSON)
    bad_request = (400, {"message": "Bad Request"})
    for data in (
        b"{", b"nothing", b"[]", b'"text"', b"7", b"null", b"\xff", b'{"Filter":"ALL","Filter":"ALL"}', b'{"A":NaN}',
        b'{"A":"\\ud800"}', b'{"A":"\\u0000"}', b"[" * 20_000, b'{"A":' + b"9" * 5_000 + b"}",
    ):  # fmt: skip
        assert said(await api.send(LISTED, data, headers=headers)) == bad_request, data[:40]
        marked = await api.send("/v1/device/whitelist/add", data, headers=headers)
        assert said(marked) == (400, {"Message": "Bad Request"}), data[:40]
    for empty in (b"", b" \r\n", b"{}"):
        assert (await api.send(LISTED, empty, headers=headers)).status == 200


async def test_paths_and_methods(running: Running, api: Client) -> None:
    for path in ("/v1/nowhere", "/v1/", "/v1/device/list", "/v1/device/list/get/", "/v1/v1/device/list/get"):
        for method in ("POST", "GET", "DELETE"):
            found = await api.send(path, b"{}", headers=authorized(api, **JSON), method=method)
            assert said(found) == (404, {"message": "Not Found"}), f"{method} {path}"
    for path in (LISTED, LISTED.removeprefix("/v1")):
        for method in ("GET", "PUT"):
            found = await api.send(path, b"", headers=authorized(api), method=method)
            assert said(found) == (404, {"message": "Not Found"}), f"{method} {path}"
    for path in (ASKED, ASKED.removeprefix("/v1")):
        for method, headers in (("GET", {}), ("POST", {}), ("POST", {"Content-Type": "text/plain"}), ("POST", JSON)):
            answer = await api.send(path, b"", headers=authorized(api, **headers), method=method)
            assert said(answer) == (200, {"Version": "1.1.29"})
            assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert running.ports


async def test_a_failure_of_ours_says_nothing_of_itself(
    running: Running, api: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_args: object, **_more: object) -> None:
        raise ZeroDivisionError("of the inner life")

    monkeypatch.setattr("provisioning.core.accounts.current", broken)
    assert said(await api.post("/device/list/get")) == (500, {"message": "Internal Server Error"})
    assert running.ports


async def test_an_operation_that_is_refused_leaves_nothing_behind(running: Running, account: Account) -> None:
    """One transaction for all of a request: an unknown secret gives no refresh token."""
    async with client(running) as api:
        await api.refused("/authenticate", {"APIKey": account.key, "APISecret": "wrong"}, 401, "Not Authorized.")
        async with running.database.read() as tx:
            assert await tx.db.fetchval("SELECT count(*) FROM refresh_token") == 0


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("a.b.c", "a.b.c"), ("Bearer a.b.c", "a.b.c"), ("bEARER  a.b.c ", "a.b.c"), ("Basic a.b.c", "Basic a.b.c"),
        ("", None), ("Bearer", None), ("Bearer ", None), ("abc", None), ("a.b", None), ("a.b.c.d", None),
        ("ä.b.c", None),
    ],
)  # fmt: skip
def test_the_token_of_a_header(header: str, token: str | None) -> None:
    if token is not None:
        assert read_authorization(header) == token
        return
    with pytest.raises(Refusal) as refused:
        read_authorization(header)
    assert refused.value.reason is Reason.NOT_PROVEN


def test_forms_do_not_show_secrets() -> None:
    form = Authenticate.read(json.loads(json.dumps({"APIKey": KEY, "APISecret": SECRET})))
    assert SECRET not in repr(form)
    assert KEY in repr(form)
