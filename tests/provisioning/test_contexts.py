"""provisioning/contexts.py: who is shown which certificate. OpenSSL and Python are the clients, on free ports."""

import asyncio
import os
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from provisioning.contexts import Contexts, Files, take_any_name
from provisioning.core import pki
from provisioning.model.refusal import Refusal
from tests import peers
from tests.openssl import made, run

HOSTS = {
    "one": ("one.example", "*.one.example", "both.example"),
    "two": ("two.example", "deep.one.example", "BOTH.example", "10.0.0.1"),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files")
    for name, hosts in {"default": ("gw.example",), **HOSTS}.items():
        peers.write(path / f"{name}.pem", peers.leaf(name, *hosts))
    peers.write(path / "device.pem", peers.leaf("device"))
    peers.write(path / "stranger.pem", peers.leaf("stranger", by=made("Other")))
    return path


def files(path: Path, name: str) -> Files:
    return Files(path / f"{name}.pem", path / f"{name}.pem")


def loaded(path: Path, verify: ssl.VerifyMode = ssl.CERT_OPTIONAL) -> Contexts:
    contexts = Contexts(verify, ("one", "two"), [files(path, name) for name in HOSTS])
    contexts.load(files(path, "default"))
    contexts.trust(peers.AUTHORITY.pem.decode())
    for name in HOSTS:
        contexts.load_host(files(path, name))
    return contexts


def shake(contexts: Contexts, client: ssl.SSLContext, name: str | None) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A handshake in memory; the client's and the server's end. Raises: ssl.SSLError."""
    client.check_hostname = False
    left, right = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(left, right, server_hostname=name)
    theirs = contexts.default.wrap_bio(right, left, server_side=True)
    for _ in range(4):
        for each in (ours, theirs):
            with suppress(ssl.SSLWantReadError):
                each.do_handshake()
    return ours, theirs


def chosen(contexts: Contexts, name: str | None) -> str:
    """The common name of the certificate that is shown."""
    end, _ = shake(contexts, peers.client(), name)
    subject: Any = (end.getpeercert() or {})["subject"]
    return str(subject[0][0][1])


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("one.example", "one"), ("ONE.Example", "one"), ("two.example", "two"),
        ("any.one.example", "one"), ("deep.one.example", "two"), ("a.b.one.example", "default"),
        ("both.example", "one"), ("gw.example", "default"), ("other.example", "default"), ("example", "default"),
        ("10.0.0.1", "default"), (None, "default"),
    ],
)  # fmt: skip
def test_who_is_shown_what(path: Path, asked: str | None, expected: str) -> None:
    """An exact name is nearer than an asterisk, an asterisk is one label, the first of two with one name counts."""
    assert chosen(loaded(path), asked) == expected


def test_nothing_is_chosen_where_nothing_is_stated(path: Path) -> None:
    contexts = Contexts(ssl.CERT_NONE, ("one",), ())
    contexts.load(files(path, "default"))
    assert contexts.default.sni_callback is None
    assert chosen(contexts, "one.example") == "default"


@pytest.mark.parametrize("name", [None, "one.example", "two.example"])
def test_clients_are_judged_in_the_same_way_whatever_they_ask_for(path: Path, name: str | None) -> None:
    contexts = loaded(path, ssl.CERT_REQUIRED)
    _, end = shake(contexts, peers.client(path / "device.pem"), name)
    assert end.getpeercert(), "its certificate is known"
    for context in (peers.client(), peers.client(path / "stranger.pem")):
        with pytest.raises(ssl.SSLError, match=r"did not return a certificate|verify failed"):
            shake(contexts, context, name)


@pytest.mark.parametrize("name", [None, "one.example"])
def test_whatever_they_ask_for_the_protocols_are_the_same(path: Path, name: str | None) -> None:
    contexts = loaded(path)
    client = peers.client()
    client.set_alpn_protocols(["zero", "two"])
    end, _ = shake(contexts, client, name)
    assert (end.selected_alpn_protocol(), end.version()) == ("two", "TLSv1.3")


def test_anchors_that_come_later_count_for_all(path: Path) -> None:
    contexts = loaded(path, ssl.CERT_REQUIRED)
    other = made("Other")
    peers.write(path / "later.pem", peers.leaf("later", by=other))
    contexts.trust(other.pem.decode())
    for name in (None, "one.example"):
        _, end = shake(contexts, peers.client(path / "later.pem"), name)
        assert end.getpeercert()
    contexts.load_host(files(path, "two"))
    _, end = shake(contexts, peers.client(path / "later.pem"), "two.example")
    assert end.getpeercert()


def test_new_files_are_shown_and_bad_ones_change_nothing(path: Path, tmp_path: Path) -> None:
    host = Files(tmp_path / "c.pem", tmp_path / "k.pem")
    contexts = Contexts(ssl.CERT_NONE, ("one",), [host])

    def write(name: str, *hosts: str) -> None:
        leaf = peers.leaf(name, *hosts)
        (tmp_path / "c.pem").write_bytes(leaf.pem)
        (tmp_path / "k.pem").write_text(pki.write_key(leaf.key))

    write("before", "a.example", "b.example")
    contexts.load(host)
    contexts.load_host(host)
    write("after", "b.example", "c.example")
    contexts.load_host(host)
    assert [chosen(contexts, f"{each}.example") for each in "abc"] == ["before", "after", "after"]
    contexts.load(host)
    assert chosen(contexts, "a.example") == "after"
    for bad in (peers.leaf("bad", "a.example").pem, b"nonsense", b""):  # the first is a certificate without its key
        (tmp_path / "c.pem").write_bytes(bad)
        for load in (contexts.load, contexts.load_host):
            with pytest.raises(ssl.SSLError):
                load(host)
            assert [chosen(contexts, f"{each}.example") for each in "abc"] == ["after"] * 3
    (tmp_path / "c.pem").unlink()
    with pytest.raises(FileNotFoundError):
        contexts.load(host)
    write("nameless")
    with pytest.raises(Refusal, match="has no host name"):
        contexts.load_host(host)
    assert chosen(contexts, "b.example") == "after"


def test_the_names_of_a_file(path: Path) -> None:
    assert files(path, "two").hosts() == ("two.example", "deep.one.example", "both.example")
    (path / "none.pem").write_text("nothing")
    with pytest.raises(Refusal):
        files(path, "none").hosts()
    with pytest.raises(FileNotFoundError):
        files(path, "nowhere").hosts()


def test_a_change_of_either_file_shows_in_the_stamp(tmp_path: Path) -> None:
    pair = Files(tmp_path / "c", tmp_path / "k")
    for each in (pair.certificate, pair.key):
        each.touch()
    stamps = {pair.stamp()}
    for each in (pair.certificate, pair.key):
        os.utime(each, (1, 1))
        stamps.add(pair.stamp())
    assert len(stamps) == 3


# --- names that are none ---


@pytest.fixture
def told() -> Iterator[list[Any]]:
    """What the interpreter could raise nowhere."""
    heard: list[Any] = []
    before = sys.unraisablehook
    sys.unraisablehook = heard.append
    take_any_name()
    take_any_name()
    yield heard
    sys.unraisablehook = before


def answer(contexts: Contexts, hello: bytes) -> bytes:
    """What the server sends."""
    came, went = ssl.MemoryBIO(), ssl.MemoryBIO()
    came.write(hello)
    with suppress(ssl.SSLError):
        contexts.default.wrap_bio(came, went, server_side=True).do_handshake()
    return went.read()


@hypothesis_settings(max_examples=50)
@given(name=st.binary(min_size=1, max_size=60))
def test_any_name_is_served_or_refused(name: bytes, named: Contexts) -> None:
    answer(named, peers.hello(name))


@pytest.fixture(scope="module")
def named(path: Path) -> Iterator[Contexts]:
    before = sys.unraisablehook
    take_any_name()
    yield loaded(path)
    sys.unraisablehook = before


def test_a_name_that_is_not_ascii_leaves_no_traceback(path: Path, told: list[Any]) -> None:
    contexts = loaded(path)
    assert answer(contexts, peers.hello(b"x\x80")) == b"\x15\x03\x03\x00\x02\x02\x50", "the alert internal_error"
    assert answer(contexts, peers.hello(b"xx")), "others go on"
    assert told == []


def test_everything_else_is_still_told(told: list[Any]) -> None:
    class Broken:
        def __del__(self) -> None:
            raise RuntimeError("broken")

    Broken()
    assert [type(each.exc_value) for each in told] == [RuntimeError]


# --- with OpenSSL ---


@contextmanager
def served(contexts: Contexts) -> Iterator[int]:
    """A port where each connection gets its handshake, on a thread of its own."""
    bound = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                accepted, _ = bound.accept()
                with suppress(OSError), contexts.default.wrap_socket(accepted, server_side=True) as tls:
                    tls.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    yield bound.getsockname()[1]
    bound.shutdown(socket.SHUT_RDWR)
    bound.close()
    thread.join(5)


@pytest.mark.server
async def test_openssl_verifies_what_it_asked_for(path: Path) -> None:
    (path / "ca.pem").write_bytes(peers.AUTHORITY.pem)
    with served(loaded(path)) as port:
        for name in ("one.example", "any.one.example", "two.example", "gw.example"):
            for version in ("-tls1_2", "-tls1_3"):
                code, said = await asyncio.to_thread(
                    run, "s_client", "-connect", f"127.0.0.1:{port}", "-servername", name, "-verify_hostname", name,
                    "-CAfile", path / "ca.pem", "-verify_return_error", version,
                )  # fmt: skip
                assert code == 0, said
                assert "Verify return code: 0 (ok)" in said
        code, said = await asyncio.to_thread(
            run, "s_client", "-connect", f"127.0.0.1:{port}", "-noservername", "-CAfile", path / "ca.pem"
        )
        assert "CN = default" in said
