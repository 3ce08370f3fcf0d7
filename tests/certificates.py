"""Authorities and leaves in a database, as the tests make them."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from provisioning.core import certify, pki, publish, revocation, signing
from provisioning.core.signing import Urls
from provisioning.model.certificate import Authority, Certificate
from provisioning.model.lifecycle import State
from provisioning.model.refusal import Refusal
from provisioning.model.registry import Device, Product
from provisioning.store import certificates, devices, products
from provisioning.store import events as event_store
from provisioning.store.database import Database
from tests.openssl import Made, openssl, write

NOW = datetime.now(UTC).replace(microsecond=0)
KEY = pki.new_key()
URLS = Urls(crl="http://pki.example/c.crl", ocsp="http://pki.example/ocsp", ca="http://pki.example/c.cer")


def days(n: float) -> timedelta:
    return timedelta(days=n)


def request_of(cn: str = "device-1", key: Any = None, names: tuple[x509.GeneralName, ...] = ()) -> pki.Request:
    builder = x509.CertificateSigningRequestBuilder().subject_name(pki.make_subject(cn, "Example"))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return pki.read_csr(builder.sign(key or pki.new_key(), hashes.SHA256()).public_bytes(Encoding.DER))


def parsed(what: Certificate | Authority) -> x509.Certificate:
    return x509.load_der_x509_certificate(what.der if isinstance(what, Certificate) else what.certificate)


async def add_device(database: Database, key: str = "dk1") -> Device:
    async with database.begin() as tx:
        product = await products.find(tx, "p", "pk1") or await products.add(
            tx, Product(protocol="p", key="pk1", secret="s")
        )
        new = Device(protocol="p", state=State.ALLOCATED, product="pk1", key=key, secret="s")
        return (await devices.add_many(tx, [(new, product.id, None)]))[0]


async def issue(database: Database, authority: Authority, **more: Any) -> Certificate:
    wanted: dict[str, Any] = {"now": NOW, "days": 365, "urls": URLS} | more
    request = wanted.pop("request", None) or request_of()
    async with database.begin() as tx:
        return await certify.issue_from_csr(tx, authority, request, **wanted)


async def run(database: Database, verb: Callable[..., Awaitable[Any]], *arguments: Any, **more: Any) -> Any:
    async with database.begin() as tx:
        return await verb(tx, *arguments, **more)


async def refusal(database: Database, verb: Callable[..., Awaitable[Any]], *arguments: Any, **more: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await run(database, verb, *arguments, **more)
    return caught.value


async def stored(database: Database, certificate: Certificate) -> Certificate:
    found: Certificate = await run(database, certificates.by_id, certificate.id)
    return found


async def kinds(database: Database, **which: Any) -> list[tuple[str, str]]:
    return [(each.kind, each.serial) for each in await run(database, event_store.page, **which)]


@asynccontextmanager
async def notifications(url: str) -> AsyncIterator[list[dict[str, Any]]]:
    connection = await asyncpg.connect(url)
    heard: list[dict[str, Any]] = []
    await connection.add_listener("gatehouse", lambda *said: heard.append(json.loads(str(said[3]))))
    yield heard
    await connection.close()


def read_company(own: Made, *above: Made) -> signing.Issuer:
    return signing.read_authority(own.pem + b"".join(each.pem for each in above), pki.write_key(own.key), now=NOW)


async def ask_ocsp(database: Database, authority: Authority, leaf: Certificate, directory: Path) -> str:
    """What `openssl ocsp` makes of our answer."""
    own, of = write(directory / "ca.pem", parsed(authority)), write(directory / "leaf.pem", parsed(leaf))
    asked, answered = directory / "asked.der", directory / "answered.der"
    openssl("ocsp", "-issuer", own, "-cert", of, "-no_nonce", "-reqout", asked)
    answered.write_bytes(
        await run(database, publish.answer_ocsp, revocation.read_ocsp_request(asked.read_bytes()), now=NOW)
    )
    said = openssl("ocsp", "-issuer", own, "-cert", of, "-no_nonce", "-respin", answered, "-CAfile", own)
    assert "Response verify OK" in said
    return said.split("leaf.pem: ")[1].split("\n")[0]
