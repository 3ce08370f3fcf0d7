"""Keys and parameters of the end-to-end protection, and messages under them. Pure. Contract: section 8.

    header    of a message from a device: version 1 has 16 bytes, version 2 has 12 or 11
    KeyID     14 bytes that a device has chosen for a key of its own use
    KIV       16 bytes that the service has chosen for a message to a device

All say in bytes 4 to 7 how the ROTPublicUID ends, and in bytes 2 and 3, but for a KIV, what stands before that. What
protects a message from a device is derived from its header without the counter in its last 2 bytes.

The vendor keeps the derivation secret; this one is ours: HKDF-SHA-256 (RFC 5869) of the device's root secret.
"""

from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BITS: Final = 128
MAC_BITS: Final = 128
UPLINK_SUITE: Final = "AES_128_CCM"
DOWNLINK_SUITE: Final = "AES_128_CS1_HMAC_SHA256"
KEY_ID_BYTES: Final = 14
V1_HEADER_BYTES: Final = 16
V2_HEADER_BYTES: Final = (12, 11)
KIV_BYTES: Final = 16
KIV_HEAD: Final = bytes.fromhex("11010100")
NONCE_BYTES: Final = 12
COUNTER_BYTES: Final = 2
EPOCH_BYTES: Final = 6

INFO_SYMMETRIC: Final = b"uss/psk"
INFO_UPLINK: Final = b"uss/e2e-up"
INFO_UPLINK_INTEGRITY: Final = b"uss/e2e-int"
INFO_DOWNLINK_ENCRYPTION: Final = b"uss/e2e-dn-enc"
INFO_DOWNLINK_MAC: Final = b"uss/e2e-dn-mac"
INFO_DOWNLINK_IV: Final = b"uss/e2e-dn-iv"
INFO_DOWNLINK_INTEGRITY: Final = b"uss/e2e-dn-int"


@dataclass(frozen=True, slots=True)
class DownlinkKeys:
    """16 bytes each."""

    encryption: bytes = field(repr=False)
    authentication: bytes = field(repr=False)
    iv: bytes


def _derive(root: bytes, salt: bytes, info: bytes, bits: int = KEY_BITS) -> bytes:
    return HKDF(SHA256(), bits // 8, salt=salt, info=info).derive(root)


def tail(header: bytes) -> str:
    """How the ROTPublicUID of a header, KeyID or KIV ends: 8 hex digits."""
    return header[4:8].hex()


def middle(header: bytes) -> str:
    """What stands before that in the ROTPublicUID, by a header or KeyID: 4 hex digits."""
    return header[2:4].hex()


def header_of(uid: str, epoch: bytes, counter: int, *, version: int = 1) -> bytes:
    """A header as a device of that ROTPublicUID writes it. `epoch`: 6 bytes; of version 2: 2 or 1."""
    first = b"\x11\x01" if version == 1 else b"\x29\x01"
    return first + bytes.fromhex(uid)[2:] + epoch + counter.to_bytes(COUNTER_BYTES, "big")


def symmetric_key(root: bytes, key_id: bytes, bits: int) -> bytes:
    """`bits`: 128 or 256. `root`: the device's root secret, 32 bytes, here as below."""
    return _derive(root, key_id, INFO_SYMMETRIC, bits)


def uplink_key(root: bytes, header: bytes) -> bytes:
    """16 bytes."""
    return _derive(root, header[:-COUNTER_BYTES], INFO_UPLINK)


def uplink_integrity_key(root: bytes, header: bytes) -> bytes:
    """16 bytes."""
    return _derive(root, header[:-COUNTER_BYTES], INFO_UPLINK_INTEGRITY)


def uplink_nonce(header: bytes) -> bytes:
    """12 bytes."""
    if len(header) == V1_HEADER_BYTES:
        return header[V1_HEADER_BYTES - NONCE_BYTES :]
    return header.ljust(NONCE_BYTES, b"\0")


def uplink_kiv(header: bytes) -> bytes:
    """16 bytes."""
    return header.ljust(KIV_BYTES, b"\0")


def seal_uplink(root: bytes, header: bytes, plaintext: bytes) -> bytes:
    """A message as the device sends it: header, ciphertext, tag of 16 bytes; nothing else is authenticated."""
    cipher = AESCCM(uplink_key(root, header), tag_length=MAC_BITS // 8)
    return header + cipher.encrypt(uplink_nonce(header), plaintext, None)


def open_uplink(root: bytes, message: bytes, header_bytes: int = V1_HEADER_BYTES) -> bytes:
    """The plaintext of such a message.

    Raises:
        ValueError: another device's, too short, or damaged.
    """
    header, sealed = message[:header_bytes], message[header_bytes:]
    try:
        return AESCCM(uplink_key(root, header), tag_length=MAC_BITS // 8).decrypt(uplink_nonce(header), sealed, None)
    except (InvalidTag, ValueError):  # a ValueError: there is not even a whole header, or a tag
        raise ValueError("the message is not of this device, or damaged") from None


def downlink_kiv(uid: str, epoch: bytes, counter: int) -> bytes:
    """`epoch`: 6 bytes."""
    return KIV_HEAD + bytes.fromhex(uid)[4:] + epoch + counter.to_bytes(COUNTER_BYTES, "big")


def downlink_keys(root: bytes, kiv: bytes) -> DownlinkKeys:
    return DownlinkKeys(
        encryption=_derive(root, kiv, INFO_DOWNLINK_ENCRYPTION),
        authentication=_derive(root, kiv, INFO_DOWNLINK_MAC),
        iv=_derive(root, kiv, INFO_DOWNLINK_IV),
    )


def downlink_integrity_key(root: bytes, kiv: bytes) -> bytes:
    """16 bytes."""
    return _derive(root, kiv, INFO_DOWNLINK_INTEGRITY)
