import base64
import hmac
import os
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.store.sealing import Sealer, SealError, key_file, read_key

KEY = bytes(range(32))
texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(texts, texts)
def test_a_secret_opens_in_its_own_row(secret: str, context: str) -> None:
    sealer = Sealer(KEY)
    sealed = sealer.seal(secret, context)
    assert Sealer(KEY).open(sealed, context) == secret
    assert len(sealed) == 1 + 4 + 12 + len(secret.encode()) + 16


def test_derived_keys_are_the_same_for_ever_and_different_for_each_purpose() -> None:
    # RFC 5869 by hand: extract with a salt of zeros, expand by one block.
    extracted = hmac.digest(bytes(32), KEY, "sha256")
    assert Sealer(KEY).derive("links") == hmac.digest(extracted, b"gatehouse|links\x01", "sha256")
    keys = {Sealer(key).derive(purpose) for key in (KEY, bytes(32)) for purpose in ("links", "link", "")}
    assert len(keys | {KEY}) == 7


def test_the_same_secret_never_looks_the_same() -> None:
    sealer = Sealer(KEY)
    sealed = {sealer.seal("s3cret", "row") for _ in range(100)}
    assert len(sealed) == 100
    assert not any(b"s3cret" in one for one in sealed)


def test_another_rows_secret_does_not_open() -> None:
    sealer = Sealer(KEY)
    with pytest.raises(SealError, match=r"device\|b is damaged or belongs to another row"):
        sealer.open(sealer.seal("s3cret", "device|a"), "device|b")


def test_another_master_key_is_told_from_damage() -> None:
    with pytest.raises(SealError, match="another master key"):
        Sealer(bytes(32)).open(Sealer(KEY).seal("s3cret", "row"), "row")


@given(st.data())
def test_any_damage_is_noticed(data: st.DataObject) -> None:
    sealer = Sealer(KEY)
    sealed = bytearray(sealer.seal("s3cret", "row"))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SealError) as caught:
        sealer.open(bytes(sealed), "row")
    assert "s3cret" not in str(caught.value)


@given(st.binary(max_size=80))
def test_any_bytes_are_opened_or_refused(data: bytes) -> None:
    head = Sealer(KEY).seal("", "row")[:5]
    for sealed in (data, head + data):
        with pytest.raises(SealError):
            Sealer(KEY).open(sealed, "row")


@pytest.mark.parametrize("text", [KEY.hex(), KEY.hex().upper(), base64.b64encode(KEY).decode(), f" {KEY.hex()}\n"])
def test_a_key_is_hex_or_base64(text: str) -> None:
    assert read_key(text) == KEY


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "0 bytes"),
        ("hello", "neither"),
        ("ü" * 64, "neither"),
        (KEY.hex()[:-2], "has 46 bytes|neither"),
        (base64.b64encode(KEY[:31]).decode(), "31 bytes"),
        ("zz" * 32, "neither"),
    ],
)
def test_what_is_no_key_is_refused_in_words_that_do_not_repeat_it(text: str, why: str) -> None:
    with pytest.raises(SealError, match=why) as caught:
        read_key(text)
    assert not text or text not in str(caught.value)


def test_a_sealer_takes_32_bytes() -> None:
    with pytest.raises(SealError, match="16 bytes"):
        Sealer(KEY[:16])


def test_the_key_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "master.key"
    before = os.umask(0)
    try:
        key = key_file(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert key_file(path) == key
    assert len(key) == 32
    assert [each.name for each in path.parent.iterdir()] == ["master.key"]


def test_racing_creators_get_one_key(tmp_path: Path) -> None:
    """Each process reads the file at once: it must never be there without its key."""
    keys: list[bytes] = []
    for attempt in range(20):
        path = tmp_path / str(attempt) / "master.key"
        start = threading.Barrier(8)

        def create(path: Path = path, start: threading.Barrier = start) -> None:
            start.wait()
            keys.append(key_file(path))

        threads = [threading.Thread(target=create) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(keys[-8:])) == 1
    assert len(keys) == 160


def test_a_file_that_holds_no_key_is_kept_and_named(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    for content in (b"", b"not a key", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(SealError, match=re.escape(str(path))):
            key_file(path)
        assert path.read_bytes() == content


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SealError, match="cannot read the master key"):
        key_file(tmp_path / "file" / "master.key")
