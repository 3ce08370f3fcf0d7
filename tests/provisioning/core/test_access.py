"""Access tokens: who gets in, by which key, and for how long."""

import asyncio
import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from provisioning.core import access
from provisioning.core.access import KEY_LIFETIME, LIFETIME, LOOK_AGAIN, Access, Claims, key_set
from provisioning.model.account import Account
from provisioning.model.refusal import Reason, Refusal
from provisioning.store import accounts
from provisioning.store.database import Database

ISSUER = "https://gatehouse.example"
ACCOUNT = Account(id=7, key="0d636af8-d001-49ba-86d3-80f21272c14a", generation=3)
NOW = datetime.now(UTC).replace(microsecond=0)
SECOND = timedelta(seconds=1)
FOREIGN = rsa.generate_private_key(65537, 2048)


def segment(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: object, claims: object, key: rsa.RSAPrivateKey) -> str:
    """A JWS by no code of the product's."""
    text = f"{segment(header)}.{segment(claims)}"
    return f"{text}.{segment(key.sign(text.encode(), padding.PKCS1v15(), SHA256()))}"


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims, _ = token.split(".")
    return tuple(json.loads(base64.urlsafe_b64decode(part + "==")) for part in (header, claims))


async def issued(found: Access, database: Database, now: datetime = NOW) -> str:
    await found.keys(database, now)
    return found.issue(ACCOUNT, now=now)


async def refused(found: Access, database: Database, token: str, now: datetime = NOW) -> bool:
    try:
        await found.read(database, token, now=now)
    except Refusal as refusal:
        return refusal.reason is Reason.NOT_PROVEN
    return False


async def test_a_token_is_what_the_contract_says_and_lives_an_hour(database: Database) -> None:
    found = Access(ISSUER)
    token = await issued(found, database)
    header, claims = parts(token)
    assert (header["alg"], header["typ"]) == ("RS256", "JWT")
    assert {name: claims[name] for name in ("sub", "aud", "iss", "token_use")} == {
        "sub": ACCOUNT.key, "aud": ISSUER, "iss": ISSUER, "token_use": "id",
    }  # fmt: skip
    assert claims["auth_time"] == claims["iat"] == claims["exp"] - 3_600 == int(NOW.timestamp())
    assert await found.read(database, token, now=NOW) == Claims(ACCOUNT.key, 7, 3)
    assert await found.read(database, token, now=NOW + LIFETIME - SECOND)
    assert await refused(found, database, token, NOW + LIFETIME)


async def test_whoever_has_the_key_set_verifies_a_token(database: Database) -> None:
    found = Access(ISSUER)
    token = await issued(found, database)
    published = key_set(await found.keys(database, NOW))
    assert [sorted(key) for key in published["keys"]] == [["alg", "e", "key_ops", "kid", "kty", "n", "use"]]  # type: ignore[attr-defined]
    assert all(key["key_ops"] == ["verify"] for key in published["keys"])  # type: ignore[attr-defined]
    key = jwt.PyJWKSet.from_dict(published)[jwt.get_unverified_header(token)["kid"]]
    assert jwt.decode(token, key, algorithms=["RS256"], audience=ISSUER, issuer=ISSUER)["sub"] == ACCOUNT.key


async def test_tokens_that_are_not_ours(database: Database) -> None:
    found = Access(ISSUER)
    token = await issued(found, database)
    header, claims = parts(token)
    head, body, signature = token.split(".")
    (kid, own), *_ = (await found.keys(database, NOW)).private
    assert not await refused(found, database, signed(header, claims, own)), "what is refused below is refused for cause"

    pem = own.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    confused = f"{segment(header | {'alg': 'HS256'})}.{body}"
    by_public_key = segment(hmac.new(pem, confused.encode(), hashlib.sha256).digest())
    attacks = {
        "no algorithm": f"{segment(header | {'alg': 'none'})}.{body}.",
        "no algorithm, with a signature": f"{segment(header | {'alg': 'none'})}.{body}.{signature}",
        "the public key as a secret": f"{confused}.{by_public_key}",
        "another algorithm of the same key": f"{segment(header | {'alg': 'RS512'})}.{body}.{signature}",
        "a foreign key under our name": signed(header, claims, FOREIGN),
        "a foreign key under its own name": signed(header | {"kid": "foreign"}, claims, FOREIGN),
        "a foreign key in the header": signed(
            header | {"jwk": json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(FOREIGN.public_key()))}, claims, FOREIGN
        ),
        "an unknown key": signed(header | {"kid": "unheard-of"}, claims, own),
        "no key": signed({"alg": "RS256"}, claims, own),
        "a key that is no name": signed(header | {"kid": {"a": 1}}, claims, own),
        "another account": f"{head}.{segment(claims | {'sub': 'other'})}.{signature}",
        "a later end": f"{head}.{segment(claims | {'exp': claims['exp'] + 1})}.{signature}",
        "a part of the signature": f"{head}.{body}.{signature[:-8]}",
        "no signature": f"{head}.{body}.",
        "another audience": signed(header, claims | {"aud": "https://other"}, own),
        "another issuer": signed(header, claims | {"iss": "https://other"}, own),
        "another use": signed(header, claims | {"token_use": "access"}, own),
        "an end that is no number": signed(header, claims | {"exp": "tomorrow"}, own),
        "an end without end": signed(header, claims | {"exp": True}, own),
        "a generation that is no number": signed(header, claims | {"generation": "3"}, own),
        "a name that is none": signed(header, claims | {"sub": 7}, own),
        "claims that are a list": signed(header, [claims], own),
        "claims that are no JSON": signed(header, b"\xff", own),
        "a header that is no JSON": f"{segment(b'{')}.{body}.{signature}",
        "a header that is a list": signed([header], claims, own),
        "a header nested without end": f"{segment(b'[' * 5_000)}.{body}.{signature}",
        "a header with a long number": f"{segment(b'1' * 5_000)}.{body}.{signature}",
        "a header that is no text": f"{segment(bytes([0xFF, 0xFE]))}.{body}.{signature}",
        "no Base64": "*.*.*",
        "nothing": "..",
        "one part": "abc",
    } | {f"without {name}": signed(header, {k: v for k, v in claims.items() if k != name}, own) for name in claims}
    accepted = [what for what, attack in attacks.items() if not await refused(found, database, attack)]
    assert not accepted
    assert kid == header["kid"]


async def test_a_key_signs_for_30_days_and_verifies_for_as_long_as_its_tokens_live(database: Database) -> None:
    found = Access(ISSUER)
    first = await issued(found, database)
    last = await issued(found, database, NOW + KEY_LIFETIME - SECOND)
    later = NOW + KEY_LIFETIME
    new = await issued(found, database, later)
    kids = [parts(token)[0]["kid"] for token in (first, last, new)]
    assert kids[0] == kids[1] != kids[2]
    assert await found.read(database, last, now=later - SECOND + LIFETIME - SECOND)
    assert await refused(found, database, last, later - SECOND + LIFETIME)
    assert list((await found.keys(database, later)).public) == [kids[2], kids[0]], "both are published"
    third = await issued(found, database, later + KEY_LIFETIME)
    assert list((await found.keys(database, later + KEY_LIFETIME)).public) == [parts(third)[0]["kid"], kids[2]]
    assert await refused(found, database, first, NOW), "nothing that this key has signed can be valid still"


async def test_two_processes_make_one_key(database: Database) -> None:
    one, other = Access(ISSUER), Access(ISSUER)
    for now in (NOW, NOW + KEY_LIFETIME):
        tokens = await asyncio.gather(*(issued(each, database, now) for each in (one, other, one, other)))
        assert len({parts(token)[0]["kid"] for token in tokens}) == 1
        for token in tokens:
            assert await one.read(database, token, now=now) == await other.read(database, token, now=now)
    async with database.read() as tx:
        assert len(await accounts.token_keys(tx)) == 2


async def test_the_key_of_another_process_is_found_without_delay(database: Database) -> None:
    one, other = Access(ISSUER), Access(ISSUER)
    await issued(other, database)
    other_now = NOW + KEY_LIFETIME - 2 * SECOND
    await other.keys(database, other_now)
    token = await issued(one, database, NOW + KEY_LIFETIME)  # its clock is ahead
    assert await other.read(database, token, now=other_now + SECOND)


async def test_unknown_keys_do_not_make_it_ask_the_database_each_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Access(ISSUER)
    token = await issued(found, database)
    header, claims = parts(token)
    asked = []
    real = access.current_keys

    async def counted(database: Database, *, now: datetime) -> access.Keys:
        asked.append(now)
        return await real(database, now=now)

    monkeypatch.setattr(access, "current_keys", counted)
    now = NOW + 5 * SECOND
    attacks = [signed(header | {"kid": f"k{number}"}, claims, FOREIGN) for number in range(5)]
    assert all(await asyncio.gather(*(refused(found, database, attack, now) for attack in attacks)))
    assert asked == [now]
    await found.keys(database, now + LOOK_AGAIN - SECOND)
    assert asked == [now]
    await found.keys(database, now + LOOK_AGAIN)
    assert asked == [now, now + LOOK_AGAIN]
