"""The part of an answer that only the device can read.

Contract: "Dynamic Registration API Description", Platform response parameters. AES-128 in CBC mode; the page's "first
16 bits of productSecret" and "16 bits" of "0" are 16 bytes each, as its own sample proves. Filled up with zero bytes,
and not at all when the length fits: PKCS#7 breaks the vendor's Python client.
"""

import base64
import json
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

BLOCK: Final = 16
IV: Final = b"0" * BLOCK
KEY_ENCRYPTION, CERTIFICATE_ENCRYPTION = 2, 1


@dataclass(frozen=True, slots=True)
class Payload:
    text: str
    """Base64 of the ciphertext."""
    length: int
    """Bytes of the plaintext: clients cut there what they decrypt."""


def _cipher(product_secret: str) -> Cipher[CBC]:
    return Cipher(AES(product_secret[:BLOCK].encode()), CBC(IV))


def encrypt(plaintext: bytes, product_secret: str) -> Payload:
    """`product_secret`: at least 16 ASCII characters."""
    encryptor = _cipher(product_secret).encryptor()
    padded = plaintext + bytes(-len(plaintext) % BLOCK)
    return Payload(base64.b64encode(encryptor.update(padded) + encryptor.finalize()).decode(), len(plaintext))


def decrypt(payload: Payload, product_secret: str) -> bytes:
    """What the device reads.

    Raises:
        ValueError: the text is not Base64 of whole blocks.
    """
    decryptor = _cipher(product_secret).decryptor()
    padded = decryptor.update(base64.b64decode(payload.text, validate=True)) + decryptor.finalize()
    return padded[: payload.length]


def _compact(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


def write_psk(psk: str) -> bytes:
    """The order of the names is the vendor's."""
    return _compact({"encryptionType": KEY_ENCRYPTION, "psk": psk})


def write_certificate(certificate: str, key: str | None) -> bytes:
    """PEM, both. `key` None: the device has it."""
    made = {} if key is None else {"clientKey": key}
    return _compact({"encryptionType": CERTIFICATE_ENCRYPTION, "clientCert": certificate, **made})
