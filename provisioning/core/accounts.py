"""Accounts: create, prove, change, rotate, delete; refresh tokens."""

import secrets
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from provisioning.core import generate, registry, roots
from provisioning.core.access import Claims
from provisioning.model.account import Account, AccountCreated, AccountDeleted, AccountRotated
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Product
from provisioning.store import accounts, products
from provisioning.store.database import Tx

SECRET_LENGTH: Final = 32
"""Alphanumeric characters of a secret that is made up."""
REFRESH_LIFETIME: Final = timedelta(days=3)
NO_HASH: Final = bytes(32)


def hash_secret(secret: str) -> bytes:
    """What is kept of a secret. It is long and random: a salt would add nothing."""
    return sha256(secret.encode()).digest()


def new_secret() -> str:
    return generate.alphanumeric(SECRET_LENGTH)


async def create(
    tx: Tx,
    protocol: str,
    key: str,
    secret_hash: bytes,
    *,
    name: str = "",
    strict_e2e: bool = False,
    certificates: bool = True,
    demo: bool = False,
) -> Account:
    """Raises: Refusal DUPLICATE from the transaction, when the key is taken."""
    product = await products.add(
        tx, Product(protocol=protocol, key=key, secret=generate.secret(), name=name, demo=demo)
    )
    await accounts.add(tx, product.id, secret_hash, strict_e2e=strict_e2e, certificates=certificates)
    tx.emit(AccountCreated(device_id=0, identity=Identity(protocol, key, "")))
    return Account(
        id=product.id, key=key, strict_e2e=strict_e2e, certificates=certificates, name=name,
        created_at=product.created_at,
    )  # fmt: skip


async def find(tx: Tx, protocol: str, key: str) -> Account:
    """Raises: Refusal UNKNOWN."""
    if found := await accounts.find(tx, protocol, key):
        return found[0]
    raise Refusal(Reason.UNKNOWN, account=key)


async def prove(tx: Tx, protocol: str, key: str, secret: str) -> Account:
    """The account, for whoever knows its secret. Raises: Refusal NOT_PROVEN: unknown or wrong, in the same time."""
    account, expected = await accounts.find(tx, protocol, key) or (None, NO_HASH)
    if not compare_digest(hash_secret(secret), expected) or account is None:
        raise Refusal(Reason.NOT_PROVEN, **({"account": account.key} if account else {}))
    return account


async def current(tx: Tx, protocol: str, claims: Claims) -> Account:
    """The account, for whoever has a token of its present secret. Raises: Refusal NOT_PROVEN."""
    found = await accounts.find(tx, protocol, claims.key)
    if found is None or (found[0].id, found[0].generation) != (claims.account_id, claims.generation):
        raise Refusal(Reason.NOT_PROVEN)
    return found[0]


async def rotate(tx: Tx, account: Account, protocol: str, secret_hash: bytes) -> Account:
    """A new secret; all tokens of the old one end at once. Raises: Refusal UNKNOWN: it was deleted just now."""
    generation = await accounts.set_secret(tx, account, secret_hash)
    if generation is None:
        raise Refusal(Reason.UNKNOWN, account=account.key)
    tx.emit(AccountRotated(device_id=0, identity=Identity(protocol, account.key, "")))
    return replace(account, generation=generation)


async def delete(tx: Tx, protocol: str, key: str, *, cascade: bool, now: datetime) -> int:
    """Delete an account and what applications have made for it; with `cascade` its devices and device profiles too.

    The certificates of its devices are revoked, and nothing is trusted by its root CAs. Returns how many devices went.

    Raises:
        Refusal: UNKNOWN; IN_USE from the transaction, while it has devices or device profiles.
    """
    account = await find(tx, protocol, key)
    await accounts.lock(tx, [account.id])
    await roots.retire_all(tx, account.id, now)
    count = await registry.delete_product(tx, await registry.product(tx, protocol, key), cascade=cascade)
    tx.emit(AccountDeleted(device_id=0, identity=Identity(protocol, key, "")))
    return count


async def give_refresh_token(tx: Tx, account: Account, *, now: datetime) -> str:
    """A new one, opaque, good for `REFRESH_LIFETIME`; it is not kept."""
    await accounts.drop_refresh(tx, now - REFRESH_LIFETIME)
    token = secrets.token_urlsafe(48)
    await accounts.add_refresh(tx, token, account, now)
    return token


async def refresh(tx: Tx, protocol: str, key: str, token: str, *, now: datetime) -> Account:
    """The account that the refresh token was given to.

    Raises:
        Refusal: NOT_PROVEN: unknown, expired, another account's, or given for a secret before.
    """
    known = await accounts.find_refresh(tx, token)
    found = await accounts.find(tx, protocol, key)
    if known is None or found is None:
        raise Refusal(Reason.NOT_PROVEN)
    account, _ = found
    if known.account_id != account.id or known.generation != account.generation:
        raise Refusal(Reason.NOT_PROVEN)
    if now - known.issued_at > REFRESH_LIFETIME:
        raise Refusal(Reason.NOT_PROVEN, expired=True)
    return account
