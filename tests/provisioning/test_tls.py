"""Two-way TLS on the MQTT listener, with the real thing: OpenSSL, paho, and sockets that misbehave."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker import packets
from provisioning.app import Running
from provisioning.core import ca, certify, inventory, pki, registry, signing
from provisioning.model.certificate import Authority, Certificate
from provisioning.opening import StartError
from provisioning.store import certificates
from tests import peers
from tests.conftest import Serve, load_rows, until
from tests.devices import Raw, bootstrap_body, connect, device, get_conn_proof, login, raw
from tests.openssl import run

PRODUCT: dict[str, object] = {
    "type": "product", "protocol": "enos", "productKey": "pk1", "productSecret": "ps1", "dynamicActivation": True,
    "certificateLogin": True,
}  # fmt: skip
GROUP: dict[str, object] = {
    "type": "group", "protocol": "enos", "groupId": "g1", "password": "gp1", "productKey": "pk1",
    "autoActivation": True,
}  # fmt: skip
OTHER: dict[str, object] = {"type": "product", "protocol": "enos", "productKey": "pk2", "productSecret": "ps2"}


def row(key: str, product: str = "pk1") -> dict[str, object]:
    return {
        "type": "device", "protocol": "enos", "productKey": product, "deviceKey": key, "deviceSecret": f"secret-{key}",
    }  # fmt: skip


class Fleet:
    """A service with devices, and their certificates as files."""

    def __init__(self, service: Running, directory: Path, *, port: int | None = None) -> None:
        self.service = service
        self.directory = directory
        self.port = port or service.mqtts.port

    async def authority(self) -> Authority:
        async with self.service.database.read() as tx:
            return await ca.default(tx)

    async def issue(self, key: str = "dk1", product: str = "pk1", **more: Any) -> Certificate:
        """A certificate for a device; its files are named after it."""
        now = more.pop("now", datetime.now(UTC))
        async with self.service.database.begin() as tx:
            owner = await registry.device(tx, "enos", product, key)
            authority = await ca.default(tx)
            made = await certify.issue_with_key(
                tx, authority, pki.new_key(), pki.make_subject(key), now=now, days=more.pop("days", 30), device=owner
            )
            self.write(key, certify.bundle(authority, made.certificate), made.key)
            return made.certificate

    def write(self, name: str, chain: str, key: str) -> None:
        (self.directory / f"{name}.pem").write_text(chain)
        (self.directory / f"{name}.key").write_text(key)

    async def context(self, name: str | None = "dk1") -> ssl.SSLContext:
        """As a client that trusts the service's authority and shows the certificate `name`."""
        context = ssl.create_default_context(cadata=pki.write_pem((await self.authority()).certificate))
        if name:
            context.load_cert_chain(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        return context

    @asynccontextmanager
    async def client(self, name: str | None = "dk1") -> AsyncIterator[Raw]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=await self.context(name), server_hostname="localhost"
        )
        try:
            yield Raw(reader, writer)
        finally:
            writer.transport.abort()

    async def code(self, name: str = "dk1", credentials: dict[str, str] | None = None) -> int:
        """The CONNACK code of a login over TLS."""
        async with self.client(name) as client:
            return (await client.login(connect(credentials or login("dk1", "secret-dk1")))).code

    async def refused(self, name: str | None) -> None:
        """The handshake ends without a session."""
        with suppress(ssl.SSLError, ConnectionError):
            async with self.client(name) as client:  # with TLS 1.3 a client hears of it when it reads
                client.send(packets.PINGREQ)
                assert await client.read() is None, f"{name} is served"


@pytest.fixture
async def fleet(serve: Serve, tmp_path: Path) -> Fleet:
    service = await serve(mqtt={"connect_timeout": 0.5}, block={"refusals": 0})
    await load_rows(service, PRODUCT, OTHER, GROUP, row("dk1"), row("dk2"), row("dk3", "pk2"))
    return Fleet(service, tmp_path)


@pytest.fixture
def lines() -> Iterator[Callable[..., list[Any]]]:
    """The log lines of an event, as long as the test runs."""
    before = structlog.get_config()
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as captured:

        def read(event: str, **fields: object) -> list[Any]:
            return [line for line in captured if line["event"] == event and fields.items() <= line.items()]

        yield read
    structlog.configure(**before)


async def test_certificate_and_password_let_a_device_in(fleet: Fleet) -> None:
    certificate = await fleet.issue()
    async with fleet.client() as client:
        assert (await client.login(connect(login("dk1", "secret-dk1")))).code == 0
        assert await client.subscribe(("/sys/pk1/dk1/#", 1)) == (1,)

    async def seen() -> bool:
        async with fleet.service.database.read() as tx:
            found = await certificates.by_id(tx, certificate.id)
        return found is not None and found.last_seen_at is not None

    await until(seen, "the certificate's last use in the inventory")


async def test_each_rule_of_a_login_with_a_certificate(fleet: Fleet) -> None:
    await fleet.issue("dk1")
    await fleet.issue("dk2")
    await fleet.issue("dk3", "pk2")
    assert await fleet.code("dk1", login("dk1", "wrong")) == 4, "the password is checked as usual"
    assert await fleet.code("dk2") == 5, "another device's certificate"
    assert await fleet.code("dk3", login("dk3", "secret-dk3", product="pk2")) == 5, "a product without certificates"
    async with raw(fleet.service.mqtt.port) as client:
        assert (await client.login(connect(login("dk1", "secret-dk1")))).code == 5, "its product wants a certificate"
    async with raw(fleet.service.mqtt.port) as client:
        assert (await client.login(connect(login("dk1", "wrong")))).code == 4, "code 5 only after the right password"
    async with raw(fleet.service.mqtt.port) as client:
        assert (await client.login(connect(login("dk3", "secret-dk3", product="pk2")))).code == 0
    assert await fleet.code("dk1") == 0


async def test_dynamic_activation_over_tls(fleet: Fleet) -> None:
    await fleet.issue()
    async with fleet.client() as client:
        assert (await client.login(connect(login("dk1", "ps1", mode="3")))).code == 0
        push = await client.read_publish()
        assert json.loads(push.message.payload)["params"]["deviceSecret"] == "secret-dk1"
    async with fleet.client("dk1") as client:
        wanted = login("dk2", "ps1", mode="3")
        assert (await client.login(connect(wanted))).code == 5, "nobody gets another device's secret by his certificate"


@pytest.mark.parametrize("verb", [inventory.revoke, inventory.hold])
async def test_revocation_ends_the_session_and_refuses_the_next(fleet: Fleet, verb: Callable[..., Any]) -> None:
    certificate = await fleet.issue()
    async with fleet.client() as client:
        assert (await client.login(connect(login("dk1", "secret-dk1")))).code == 0
        async with fleet.service.database.begin() as tx:
            await verb(tx, certificate, now=datetime.now(UTC))
        assert await client.is_closed(1.0), "the session outlives its certificate by more than a second"
    assert await fleet.code() == 5
    if verb is inventory.hold:
        async with fleet.service.database.begin() as tx:
            held = await certificates.by_id(tx, certificate.id)
            assert held is not None
            await inventory.release(tx, held, now=datetime.now(UTC))
        await until(lambda: _is_let_in(fleet), "the released certificate to be taken again")


async def _is_let_in(fleet: Fleet) -> bool:
    return await fleet.code() == 0


async def test_revocation_in_one_process_bites_in_another(fleet: Fleet, serve: Serve) -> None:
    certificate = await fleet.issue()
    other = await serve()
    async with fleet.client() as client:
        assert (await client.login(connect(login("dk1", "secret-dk1")))).code == 0
        async with other.database.begin() as tx:
            await inventory.revoke(tx, certificate, now=datetime.now(UTC))
        assert await client.is_closed(1.0)


async def test_a_revocation_that_nobody_reported_bites_when_reports_are_back(fleet: Fleet) -> None:
    certificate = await fleet.issue()
    async with fleet.client() as client:
        assert (await client.login(connect(login("dk1", "secret-dk1")))).code == 0
        async with fleet.service.database.begin() as tx:
            await tx.db.execute("ALTER TABLE certificate DISABLE TRIGGER certificate_changed")
            await inventory.revoke(tx, certificate, now=datetime.now(UTC))
            await tx.db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
        assert await client.is_closed(5.0)


async def test_a_distrusted_authority_is_no_longer_enough(fleet: Fleet) -> None:
    await fleet.issue()
    old = await fleet.authority()
    context = await fleet.context()
    async with fleet.service.database.begin() as tx:
        await ca.rotate(tx, old, pki.new_key(), now=datetime.now(UTC))
    reader, writer = await asyncio.open_connection("127.0.0.1", fleet.port, ssl=context, server_hostname="localhost")
    del reader
    writer.close()  # a rotation strands nobody: who trusts the old authority still trusts the server
    async with fleet.service.database.begin() as tx:
        found = await ca.find(tx, old.name, old.generation)
        await ca.distrust(tx, found, now=datetime.now(UTC))

    async def refused() -> bool:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", fleet.port, ssl=_without_check(context), server_hostname="localhost"
        )
        client = Raw(reader, writer)
        with suppress(ConnectionError, AssertionError, ssl.SSLError):
            return (await client.login(connect(login("dk1", "secret-dk1")))).code == 5
        return True

    await until(refused, "the leaf of a distrusted authority to be refused")


def _without_check(context: ssl.SSLContext) -> ssl.SSLContext:
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _signed(
    cn: str, issuer: signing.Issuer | None = None, *, not_before: datetime, not_after: datetime
) -> tuple[str, str]:
    """A certificate and its key, self-signed without an issuer."""
    key = pki.new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key()).serial_number(7).not_valid_before(not_before).not_valid_after(not_after)
        .sign(issuer.key if issuer else key, hashes.SHA256())
    )  # fmt: skip
    return pki.write_pem(made.public_bytes(Encoding.DER)), pki.write_key(key)


async def test_bad_certificates_end_in_the_handshake(fleet: Fleet, lines: Callable[..., list[Any]]) -> None:
    now = datetime.now(UTC)
    fleet.write("stranger", *_signed("dk1", not_before=now - timedelta(1), not_after=now + timedelta(1)))
    async with fleet.service.database.read() as tx:
        issuer, _ = await ca.signer(tx, await fleet.authority())
    fleet.write("expired", *_signed("dk1", issuer, not_before=now - timedelta(9), not_after=now - timedelta(1)))
    for name in (None, "stranger", "expired"):
        await fleet.refused(name)
    await until(lambda: len(lines("mqtt.login", reason="tls")) >= 3, "a line for each refused handshake")
    told = {line["tls"] for line in lines("mqtt.login", reason="tls")}
    assert told == {"peer did not return a certificate", "certificate: self-signed certificate",
                    "certificate: certificate has expired"}  # fmt: skip


async def test_a_further_port_leaves_it_to_the_protocol_who_may_do_without(
    serve: Serve, tmp_path: Path, lines: Callable[..., list[Any]]
) -> None:
    """EnOS has none."""
    service = await serve(mqtts={"more_ports": [0]})
    await load_rows(service, PRODUCT, OTHER, row("dk1"), row("dk3", "pk2"))
    fleet = Fleet(service, tmp_path, port=service.more_ports["mqtts_more"][0])
    for credentials, code, reason in (
        (login("dk1", "secret-dk1"), 5, "certificate_required"),
        (login("dk3", "secret-dk3", product="pk2"), 5, "certificate_required"),
        (login("dk1", "wrong"), 4, "not_proven"),
    ):
        async with fleet.client(None) as client:
            assert (await client.login(connect(credentials))).code == code
            assert await client.is_closed()
        assert lines("mqtt.login")[-1]["reason"] == reason
    await fleet.refused(None)  # and who says something else is not answered at all


async def test_what_is_no_handshake(fleet: Fleet, lines: Callable[..., list[Any]]) -> None:
    for first in (
        b"GET / HTTP/1.1\r\n\r\n",
        packets.write_connect(connect(login())),
        b"\x16\x03\x01\xff\xff" + b"x" * 64,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", fleet.port)
        writer.write(first)
        async with asyncio.timeout(5):
            with suppress(ConnectionError):
                await reader.read()
        writer.close()
    hanging = [await asyncio.open_connection("127.0.0.1", fleet.port) for _ in range(20)]
    await until(lambda: len(fleet.service.mqtts.connections) == 20, "the connections to be counted")
    await until(lambda: not fleet.service.mqtts.connections, "the deadline of the handshake", 5)
    for _, writer in hanging:
        writer.close()
    await until(lambda: len(lines("mqtt.login", reason="tls")) >= 23, "a line for each")
    assert len(lines("mqtt.login", tls="timeout")) == 20
    assert not [line for line in lines("mqtt.login") if "exception" in line]
    assert not fleet.service.mqtts.per_address


async def test_only_modern_tls(fleet: Fleet) -> None:
    await fleet.issue()
    where = (
        "-connect",
        f"127.0.0.1:{fleet.port}",
        "-cert",
        fleet.directory / "dk1.pem",
        "-key",
        fleet.directory / "dk1.key",
    )
    for version in ("-tls1", "-tls1_1"):
        code, said = await asyncio.to_thread(run, "s_client", *where, version, "-cipher", "ALL:@SECLEVEL=0")
        assert code != 0, said
    for version in ("-tls1_2", "-tls1_3"):
        code, said = await asyncio.to_thread(run, "s_client", *where, version, "-alpn", "x-amzn-mqtt-ca")
        assert code == 0, said
        assert "ALPN protocol: x-amzn-mqtt-ca" in said


async def test_nobody_renegotiates(fleet: Fleet) -> None:
    await fleet.issue()
    where = (
        "-connect",
        f"127.0.0.1:{fleet.port}",
        "-cert",
        fleet.directory / "dk1.pem",
        "-key",
        fleet.directory / "dk1.key",
    )
    code, said = await asyncio.to_thread(run, "s_client", *where, "-tls1_2", data=b"R\n")
    assert code != 0, said
    assert "no renegotiation" in said


async def test_the_server_certificate_is_ours_and_verified(fleet: Fleet) -> None:
    (fleet.directory / "ca.pem").write_text(pki.write_pem((await fleet.authority()).certificate))
    for port in (fleet.port, fleet.service.https.port):
        _, said = await asyncio.to_thread(
            run, "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", fleet.directory / "ca.pem",
            "-verify_return_error", "-verify_hostname", "localhost", "-tls1_2",
        )  # fmt: skip
        assert "Verify return code: 0 (ok)" in said, said


async def test_paho_as_a_tls_client(fleet: Fleet) -> None:
    await fleet.issue()
    topic = "/sys/pk1/dk1/thing/measurepoint/post"
    context = _without_check(await fleet.context())
    async with device(fleet.port, login("dk1", "secret-dk1"), tls_context=context) as client:
        await client.subscribe(f"{topic}_reply", qos=1)
        request = {"id": "1", "version": "1.0", "method": "thing.measurepoint.post", "params": {"measurepoints": {}}}
        await client.publish(topic, json.dumps(request), qos=1)
        async with asyncio.timeout(5):
            reply = await anext(client.messages)
    assert isinstance(reply.payload, bytes)
    assert json.loads(reply.payload)["code"] == 200


async def test_https_serves_the_same_operations(fleet: Fleet) -> None:
    context = await fleet.context(None)
    async with aiohttp.ClientSession() as http:
        url = f"https://localhost:{fleet.service.https.port}/2.4.0/bootstrap"
        async with http.post(url, json=bootstrap_body("SN-TLS"), ssl=context) as answer:
            triple = await answer.json()
            assert answer.status == 200, triple
        url = f"http://127.0.0.1:{fleet.service.http.port}/2.4.0/get/conn"
        async with http.post(url, json={"self": get_conn_proof("SN-TLS")}) as answer:
            again = await answer.json()
    assert triple["murl"] == f"ssl://127.0.0.1:{fleet.port}", "a product with certificates is sent to the TLS listener"
    assert again["murl"] == triple["murl"]


async def test_configured_files_are_read_again_when_they_change(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provisioning.tls.LOOK_AGAIN", 0.05)
    now = datetime.now(UTC)

    def replace(cn: str) -> None:
        chain, key = _signed(cn, not_before=now - timedelta(1), not_after=now + timedelta(1))
        (tmp_path / "new.pem").write_text(key + chain)
        (tmp_path / "new.pem").replace(tmp_path / "server.pem")

    replace("first")
    service = await serve(tls={"certificate": str(tmp_path / "server.pem")})

    def shown() -> str:
        context = _without_check(ssl.create_default_context())
        with socket.create_connection(("127.0.0.1", service.https.port)) as plain, context.wrap_socket(plain) as tls:
            der = tls.getpeercert(binary_form=True)
        assert der
        return x509.load_der_x509_certificate(der).subject.rfc4514_string()

    assert await asyncio.to_thread(shown) == "CN=first"
    (tmp_path / "server.pem").write_text("not a certificate")  # a bad file changes nothing
    replace("second")
    await until(lambda: asyncio.to_thread(_is, shown, "CN=second"), "the new file to be served")


def _is(what: Callable[[], str], expected: str) -> bool:
    return what() == expected


async def test_a_certificate_that_comes_before_its_key_disturbs_nobody(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: Callable[..., list[Any]]
) -> None:
    monkeypatch.setattr("provisioning.tls.LOOK_AGAIN", 0.02)
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    files = {"certificate": str(certificate), "key": str(key)}
    first, second = (peers.leaf(name, "gw.example") for name in ("first", "second"))
    certificate.write_bytes(first.pem)
    key.write_text(pki.write_key(first.key))
    service = await serve(tls=files | {"hosts": [files]})
    certificate.write_bytes(second.pem)
    await until(lambda: lines("tls.load", outcome="failed", certificate=str(certificate)), "the look at the files")
    for port in (service.https.port, service.mqtts.port):
        for name in (None, "gw.example"):
            assert await asyncio.to_thread(peers.shown, port, name) == "first"
    key.write_text(pki.write_key(second.key))
    await until(lambda: lines("tls.loaded"), "the new certificate")
    for name in (None, "gw.example"):
        assert await asyncio.to_thread(peers.shown, service.https.port, name) == "second"


async def test_hosts_have_certificates_of_their_own_on_both_listeners(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: Callable[..., list[Any]]
) -> None:
    monkeypatch.setattr("provisioning.tls.LOOK_AGAIN", 0.02)
    one, two = tmp_path / "one.pem", tmp_path / "two.pem"
    peers.write(one, peers.leaf("one", "one.example"))
    peers.write(two, peers.leaf("two", "*.two.example"))
    service = await serve(tls={"hosts": [{"certificate": str(one)}, {"certificate": str(two), "key": str(two)}]})
    await load_rows(service, PRODUCT, row("dk1"))
    fleet = Fleet(service, tmp_path)
    await fleet.issue()

    async def shown(name: str | None) -> set[str]:
        return {await asyncio.to_thread(peers.shown, port, name) for port in (fleet.port, service.https.port)}

    assert await shown("one.example") == {"one"}
    assert await shown("a.two.example") == {"two"}
    assert await shown("gw.example") == await shown(None) == {"localhost"}
    code, said = await asyncio.to_thread(
        run, "s_client", "-connect", f"127.0.0.1:{fleet.port}", "-servername", "a.two.example", "-tls1_2",
        "-cert", tmp_path / "dk1.pem", "-key", tmp_path / "dk1.key",
    )  # fmt: skip
    assert (code, "CN = two" in said) == (0, True), said

    reader, writer = await asyncio.open_connection(
        "127.0.0.1", fleet.port, ssl=_without_check(await fleet.context()), server_hostname="one.example"
    )
    assert (await Raw(reader, writer).login(connect(login("dk1", "secret-dk1")))).code == 0, "the usual rules hold"
    writer.transport.abort()
    peers.write(tmp_path / "stranger.pem", peers.leaf("dk1"))
    with suppress(ssl.SSLError, ConnectionError):
        context = _without_check(peers.client(tmp_path / "stranger.pem"))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", fleet.port, ssl=context, server_hostname="one.example"
        )
        assert await reader.read() == b"", "another authority's certificate, whoever is asked for"
    await until(lambda: lines("mqtt.login", reason="tls"), "its line")

    one.write_text("not a certificate")
    peers.write(two, peers.leaf("new", "new.example"))
    await until(lambda: lines("tls.loaded", certificate=str(two)), "the new file of one")
    await until(lambda: lines("tls.load", outcome="failed", certificate=str(one)), "the bad file of the other")
    assert await shown("one.example") == {"one"}, "a bad file changes nothing"
    assert await shown("new.example") == {"new"}
    assert await shown("a.two.example") == {"localhost"}, "a name that is no longer in the file"


@pytest.mark.parametrize(
    ("hosts", "why"), [((), "has no host name by which it could be chosen"), (None, "No such file")]
)
async def test_a_host_whose_files_cannot_be_used_stops_the_start(
    serve: Serve, tmp_path: Path, hosts: tuple[str, ...] | None, why: str
) -> None:
    path = tmp_path / "host.pem"
    if hosts is not None:
        peers.write(path, peers.leaf("host", *hosts))
    with pytest.raises(StartError, match=f"tls: cannot use {path} with {path}: .*{why}"):
        await serve(tls={"hosts": [{"certificate": str(path)}]})


async def test_what_is_no_handshake_with_https_leaves_a_line(
    serve: Serve, tmp_path: Path, lines: Callable[..., list[Any]]
) -> None:
    peers.write(tmp_path / "host.pem", peers.leaf("host", "one.example"))
    service = await serve(http={"header_timeout": 0.3}, tls={"hosts": [{"certificate": str(tmp_path / "host.pem")}]})
    for first, why in (
        (b"GET / HTTP/1.1\r\n\r\n", "http request"), (b"", "timeout"),
        (peers.hello(b"x\xff"), "server name is not ASCII"),
    ):  # fmt: skip
        reader, writer = await asyncio.open_connection("127.0.0.1", service.https.port)
        writer.write(first)
        async with asyncio.timeout(5):
            with suppress(ConnectionError):
                await reader.read()
        writer.close()
        await until(partial(lines, "http.request", reason="tls", tls=why), f"the line: {why}")
    assert service.https.connections == 0


async def test_the_end_comes_in_the_moment_of_a_change(service: Running) -> None:
    """What is told at the same time as the end, does not hold the end up."""
    tls = service.tls
    waiting = len(tls._again._waiters)
    task = asyncio.create_task(tls.run())
    await until(lambda: len(tls._again._waiters) > waiting, "it to wait")
    tls.changed()
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=5)
    assert done, "it runs on"
    assert task.cancelled()


async def test_the_servers_own_certificate_is_kept_and_renewed(serve: Serve, tmp_path: Path) -> None:
    first = await serve(data_dir=str(tmp_path))
    path = tmp_path / "tls" / "server.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    await serve(data_dir=str(tmp_path))
    assert path.read_text() == text, "a restart issues nothing"
    async with first.database.begin() as tx:
        authority = await ca.default(tx)
        await ca.rotate(tx, authority, pki.new_key(), now=datetime.now(UTC))
        await ca.distrust(tx, await ca.find(tx, authority.name, authority.generation), now=datetime.now(UTC))
    await until(lambda: path.read_text() != text, "a certificate of the new generation")


async def test_no_connection_leaks(fleet: Fleet) -> None:
    await fleet.issue()
    context = await fleet.context()
    for round_ in range(30):
        _, writer = await asyncio.open_connection("127.0.0.1", fleet.port)
        if round_ % 3 == 0:
            writer.transport.abort()
            continue
        if round_ % 3 == 1:
            writer.write(b"\x16\x03\x01\x00\x05hello")
            writer.close()
            continue
        writer.close()
        _, writer = await asyncio.open_connection("127.0.0.1", fleet.port, ssl=context, server_hostname="localhost")
        writer.transport.abort()
    await until(lambda: not fleet.service.mqtts.connections, "the connections to be gone", 5)
    assert not fleet.service.mqtts.per_address


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
async def test_a_stop_that_comes_with_a_change_is_a_stop(service: Running, turns: int) -> None:
    running = asyncio.create_task(service.tls.run())
    for _ in range(3):  # until it waits
        await asyncio.sleep(0)
    service.tls.changed()
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait([running], timeout=10)
    assert done, "it goes on"
