"""Access tokens: JWTs (RFC 7519) signed by RS256 with keys that rotate, and the key set (RFC 7517) that verifies them.

The newest key signs. A key that another has followed verifies until the last token that it signed has expired.
"""

import asyncio
import json
import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from provisioning.core import pki
from provisioning.core.pki import KeyType
from provisioning.model.account import Account
from provisioning.model.refusal import Reason, Refusal
from provisioning.store import accounts
from provisioning.store.accounts import TokenKey
from provisioning.store.database import Database, Tx

ALGORITHM: Final = "RS256"
LIFETIME: Final = timedelta(seconds=3_600)
KEY_LIFETIME: Final = timedelta(days=30)
"""How long a key signs."""
LOOK_AGAIN: Final = timedelta(seconds=60)
"""So long a set of keys is taken for the current one."""
TOKEN_USE: Final = "id"  # noqa: S105 - no secret
MOST_VERIFIED: Final = 10_000
"""Tokens that need not be verified again: that takes longer than most of what they are shown for."""
CLAIMS: Final = ("sub", "aud", "iss", "token_use", "auth_time", "iat", "exp", "account", "generation")


@dataclass(frozen=True, slots=True)
class Claims:
    """Whom a token is for."""

    key: str
    account_id: int
    """Tells an account from a later one of the same key."""
    generation: int


@dataclass(slots=True)
class Keys:
    """A set of keys, the newest first."""

    private: Sequence[tuple[str, rsa.RSAPrivateKey]] = field(repr=False)
    newest_at: datetime
    read_at: datetime
    public: Mapping[str, rsa.RSAPublicKey] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.public = {kid: key.public_key() for kid, key in self.private}


class Access:
    """Gives and reads access tokens. `issuer` stands in them as `iss` and `aud`."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer
        self._keys: Keys | None = None
        self._reading = asyncio.Lock()
        self._verified: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        """Claims of tokens whose signature has been verified. Whether they still count is asked each time."""

    async def keys(self, database: Database, now: datetime, kid: str | None = None) -> Keys:
        """The keys, read again now and then, and when one is asked for that is not among them; one is made if needed.

        Raises:
            Refusal: UNAVAILABLE.
        """
        if self._is_fresh(now, kid):
            assert self._keys is not None
            return self._keys
        async with self._reading:
            if not self._is_fresh(now, kid):
                self._keys = await current_keys(database, now=now)
            assert self._keys is not None
            return self._keys

    def _is_fresh(self, now: datetime, kid: str | None) -> bool:
        keys = self._keys
        if keys is None or now >= keys.newest_at + KEY_LIFETIME:
            return False
        age = abs(now - keys.read_at)
        return age < LOOK_AGAIN and (kid is None or kid in keys.public or age < timedelta(seconds=1))

    def issue(self, account: Account, *, now: datetime) -> str:
        """A token for the account, signed with the newest of the keys that `keys` has read last.

        It takes no connection of its own: whoever holds one must not wait for another.
        """
        assert self._keys is not None, "keys must have been read before"
        kid, key = self._keys.private[0]
        at = int(now.timestamp())
        claims = {
            "sub": account.key, "aud": self._issuer, "iss": self._issuer, "token_use": TOKEN_USE, "auth_time": at,
            "iat": at, "exp": at + int(LIFETIME.total_seconds()), "account": account.id,
            "generation": account.generation,
        }  # fmt: skip
        return jwt.encode(claims, key, ALGORITHM, headers={"kid": kid})

    async def read(self, database: Database, token: str, *, now: datetime) -> Claims:
        """Whom the token is for.

        Raises:
            Refusal: NOT_PROVEN: not a token, not one of ours, altered or expired; UNAVAILABLE.
        """
        if verified := self._verified.get(token):
            return _checked(verified, now)
        kid = _key_id(token)
        key = (await self.keys(database, now, kid)).public.get(kid)
        if key is None:
            raise Refusal(Reason.NOT_PROVEN)
        try:
            claims = jwt.decode(
                token, key, algorithms=[ALGORITHM], audience=self._issuer, issuer=self._issuer,
                options={"require": [*CLAIMS], "verify_exp": False, "verify_iat": False},
            )  # fmt: skip
        except (jwt.PyJWTError, ValueError):
            raise Refusal(Reason.NOT_PROVEN) from None
        checked = _checked(claims, now)
        self._verified[token] = claims
        if len(self._verified) > MOST_VERIFIED:
            self._verified.popitem(last=False)
        return checked


def _key_id(token: str) -> str:
    """Of the key that the token says it is signed with. Raises: Refusal NOT_PROVEN."""
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):  # anybody may have written it: no text, nested without end
        raise Refusal(Reason.NOT_PROVEN) from None
    kid = header.get("kid")
    if header.get("alg") != ALGORITHM or not isinstance(kid, str):
        raise Refusal(Reason.NOT_PROVEN)
    return kid


def _checked(claims: Mapping[str, Any], now: datetime) -> Claims:
    """By our clock: PyJWT asks the system's. Raises: Refusal NOT_PROVEN."""
    account_id, generation, expires = (claims[name] for name in ("account", "generation", "exp"))
    if claims["token_use"] != TOKEN_USE or any(type(each) is not int for each in (account_id, generation, expires)):
        raise Refusal(Reason.NOT_PROVEN)
    if now.timestamp() >= expires:
        raise Refusal(Reason.NOT_PROVEN, expired=True)
    return Claims(claims["sub"], account_id, generation)


async def current_keys(database: Database, *, now: datetime) -> Keys:
    """The keys as the database has them. One that may sign is made when there is none.

    Raises:
        Refusal: UNAVAILABLE.
    """
    async with database.read() as tx:
        known = await accounts.token_keys(tx)
    if not known or now >= known[0].created_at + KEY_LIFETIME:
        pem = pki.write_key(await asyncio.to_thread(pki.new_key, KeyType.RSA2048))
        async with database.begin() as tx:
            known = await _succeed(tx, pem, now)
    private = []
    for each in known:
        key = pki.read_key(each.pem, ours=True)
        assert isinstance(key, rsa.RSAPrivateKey)
        private.append((each.kid, key))
    return Keys(private, known[0].created_at, now)


async def _succeed(tx: Tx, pem: str, now: datetime) -> list[TokenKey]:
    """Let a new key sign, unless another process was faster; drop those whose tokens have all expired."""
    await accounts.lock_token_keys(tx)
    known = await accounts.token_keys(tx)
    if not known or now >= known[0].created_at + KEY_LIFETIME:
        new = TokenKey(secrets.token_urlsafe(24), pem, now)
        await accounts.add_token_key(tx, new)
        known = [new, *known]
    outlived = [
        old.kid for old, successor in zip(known[1:], known, strict=False)
        if successor.created_at + LIFETIME + LOOK_AGAIN + timedelta(hours=1) < now
    ]  # fmt: skip
    await accounts.drop_token_keys(tx, outlived)
    return [each for each in known if each.kid not in outlived]


def key_set(keys: Keys) -> dict[str, object]:
    """The JWK set of a set of keys."""
    return {
        "keys": [
            json.loads(RSAAlgorithm.to_jwk(public)) | {"kid": kid, "use": "sig", "alg": ALGORITHM}
            for kid, public in keys.public.items()
        ]
    }
