"""Secrets at rest: AES-256-GCM under one master key, bound to the row they belong to.

A sealed secret is `0x01 | key id (4) | nonce (12) | ciphertext and tag`. The key id is the head of the key's SHA-256,
so that a wrong master key is told from a damaged row. The context (associated data) names table and row: a sealed
secret that is copied to another row does not open there.
"""

import base64
import binascii
import os
import secrets
import tempfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VERSION: Final = b"\x01"
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
HEAD: Final = 1 + 4


class SealError(Exception):
    """A secret does not open, or the master key is not one; the text says which and what to do."""


class Sealer:
    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise SealError(f"the master key has {len(key)} bytes, it must have {KEY_BYTES}")
        self._key = key
        self._cipher = AESGCM(key)
        self._head = VERSION + sha256(key).digest()[:4]

    def derive(self, purpose: str) -> bytes:
        """A key for something else than sealing: 32 bytes by HKDF-SHA-256 (RFC 5869)."""
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"gatehouse|{purpose}".encode()).derive(self._key)

    def seal(self, secret: str, context: str) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return self._head + nonce + self._cipher.encrypt(nonce, secret.encode(), context.encode())

    def open(self, sealed: bytes, context: str) -> str:
        """The secret.

        Raises:
            SealError: another master key, another row, or damage.
        """
        if sealed[:HEAD] != self._head:
            raise SealError("the secret was sealed under another master key: start with the key of this database")
        nonce, body = sealed[HEAD : HEAD + NONCE_BYTES], sealed[HEAD + NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, body, context.encode()).decode()
        except (InvalidTag, ValueError):
            raise SealError(f"the sealed secret of {context} is damaged or belongs to another row") from None


def read_key(text: str) -> bytes:
    """A master key from its text: base64 or hex of 32 bytes.

    Raises:
        SealError: it is neither.
    """
    text = text.strip()
    try:
        key = bytes.fromhex(text) if len(text) == 2 * KEY_BYTES else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise SealError("the master key is neither base64 nor hex") from None
    if len(key) != KEY_BYTES:
        raise SealError(f"the master key has {len(key)} bytes, it must have {KEY_BYTES} (base64 or hex)")
    return key


def _make_key(path: Path) -> None:
    """Write a new key, and only then give it its name: others find it whole or not at all, and the first wins."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # what is sealed from now on is lost without the key
    finally:
        os.close(directory)


def key_file(path: Path) -> bytes:
    """The key in `path`; one is made, readable by its owner alone, when there is none.

    Raises:
        SealError: the file holds no key, or cannot be read or written.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _make_key(path)
        return read_key(path.read_text("ascii"))
    except (OSError, UnicodeDecodeError) as error:
        raise SealError(f"cannot read the master key {path}: {error}") from error
    except SealError as error:
        raise SealError(f"{path}: {error}") from None
