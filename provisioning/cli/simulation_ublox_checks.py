"""What a simulated u-blox module knows, and what it makes of what it gets: keys, messages, certificates. Pure.

Nothing here is the service's own code: both sides are written after the contract, sections 3, 7 and 8.
"""

import base64
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key
from cryptography.x509.oid import NameOID

from provisioning.cli.simulation import QUOTED, WrongAnswerError

KEY_BYTES: Final = 16
TAG_BYTES: Final = 16
NONCE_BYTES: Final = 12
BITS: Final = 128
EPOCH: Final = {16: 6, 12: 2, 11: 1}
"""Bytes of a header -> bytes of its epoch."""
DOWNLINK: Final = {
    "EncryptionKey": b"uss/e2e-dn-enc",
    "AuthenticationKey": b"uss/e2e-dn-mac",
    "AESIV": b"uss/e2e-dn-iv",
}
DOWNLINK_SUITE: Final = "AES_128_CS1_HMAC_SHA256"


@dataclass(frozen=True, slots=True)
class Module:
    """One simulated module."""

    uid: str
    number: int
    """Of the run, from 0 on."""
    secret: bytes = field(repr=False)
    device_serial: str

    @property
    def number_or_uid(self) -> int | str:
        """Its uid in replies of end-to-end services."""
        return int(self.uid) if self.uid.isdecimal() else self.uid

    def derive(self, salt: bytes, info: bytes, length: int = KEY_BYTES) -> bytes:
        return HKDF(SHA256(), length, salt=salt, info=info).derive(self.secret)

    def sign(self, body: Mapping[str, object]) -> dict[str, object]:
        """With its Mac."""
        text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        key = self.derive(bytes.fromhex(self.uid), b"uss/hb", 32)
        return {**body, "Mac": hmac.new(key, text.encode(), sha256).hexdigest()}

    def header(self, length: int, epoch: bytes, counter: int) -> bytes:
        """Of an uplink message: 16 bytes are v1, 12 or 11 are v2. `epoch`: at least as long as it needs."""
        first = b"\x11" if length == max(EPOCH) else b"\x21"
        uid = bytes.fromhex(self.uid)
        return first + b"\x01" + uid[2:] + epoch[: EPOCH[length]] + counter.to_bytes(2, "big")

    def encrypt(self, header: bytes, text: bytes) -> bytes:
        """The message without its header."""
        key = self.derive(header[:-2], b"uss/e2e-up")
        nonce = header[4:16] if len(header) == max(EPOCH) else header.ljust(NONCE_BYTES, b"\0")
        return AESCCM(key, TAG_BYTES).encrypt(nonce, text, None)


def check(wrong: Mapping[str, bool]) -> None:
    """Raises: WrongAnswerError: the first of these that holds."""
    if said := next((said for said, holds in wrong.items() if holds), None):
        raise WrongAnswerError(said)


def unbase64(answer: Mapping[str, Any], name: str) -> bytes:
    """Raises: WrongAnswerError."""
    try:
        return base64.b64decode(answer[name], validate=True)
    except (KeyError, TypeError, ValueError):
        raise WrongAnswerError(f"{name} is no Base64") from None


def decrypt(answer: Mapping[str, Any], message: bytes) -> bytes:
    """As an application does it with the answer's parameters and nothing else; `message`: without its header.

    Raises:
        WrongAnswerError.
    """
    suite, mac_length = answer.get("CipherSuite"), answer.get("MACLength")
    check({f"{suite} of {mac_length} bits": suite != "AES_128_CCM" or mac_length != BITS})
    try:
        return AESCCM(unbase64(answer, "Key"), TAG_BYTES).decrypt(unbase64(answer, "Nonce"), message, None)
    except (InvalidTag, ValueError):
        raise WrongAnswerError("the message cannot be read with these parameters") from None


def check_downlink(answer: Mapping[str, Any], module: Module) -> bytes:
    """The KIV, when the module would derive the same keys from it. Raises: WrongAnswerError."""
    kiv = unbase64(answer, "KIV")
    check({
        "the KIV names another device": kiv[:8] != b"\x11\x01\x01\x00" + bytes.fromhex(module.uid)[4:],
        "the KIV has no 16 bytes": len(kiv) != 16,  # noqa: PLR2004 - contract, 8.1
        "it is of another device": answer.get("ROTPublicUID") != module.number_or_uid,
        "another suite": answer.get("CipherSuite") != DOWNLINK_SUITE,
        "other lengths": any(answer.get(name) != BITS for name in ("MACLength", "KeyLength", "AuthKeyLength")),
    })  # fmt: skip
    check({
        f"another {name} than the module's": unbase64(answer, name) != module.derive(kiv, info)
        for name, info in DOWNLINK.items()
    })  # fmt: skip
    return kiv


def read_certificate(pem: object) -> x509.Certificate:
    """Raises: WrongAnswerError."""
    try:
        return x509.load_pem_x509_certificate(str(pem).encode())
    except ValueError as error:
        raise WrongAnswerError(f"no certificate: {error}"[:QUOTED]) from None


def name_of(certificate: x509.Certificate, which: x509.ObjectIdentifier = NameOID.COMMON_NAME) -> str:
    """Empty: the subject has none."""
    values = certificate.subject.get_attributes_for_oid(which)
    return str(values[0].value) if values else ""


def check_root(pem: object, name: str, now: datetime) -> x509.Certificate:
    """Raises: WrongAnswerError: no root CA of that name, or not valid now."""
    root = read_certificate(pem)
    check({
        "the root CA has another name": name_of(root) != name,
        "the root CA is not valid now": not root.not_valid_before_utc <= now < root.not_valid_after_utc,
        "the root CA is no CA": not is_ca(root),
    })  # fmt: skip
    check_issued(root, root)
    return root


def is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def check_issued(leaf: x509.Certificate, root: x509.Certificate) -> None:
    """Raises: WrongAnswerError."""
    try:
        leaf.verify_directly_issued_by(root)
    except (InvalidSignature, ValueError, TypeError):
        raise WrongAnswerError("the certificate was not issued by the root CA") from None


def install(
    command: Mapping[str, Any], module: Module, root: x509.Certificate, own: ec.EllipticCurvePrivateKey | None,
    now: datetime,
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:  # fmt: skip
    """What the command brings: a certificate, with its key. `own`: the key of the request for it, if there was one.

    Raises:
        WrongAnswerError: a module could not use it.
    """
    leaf = read_certificate(command.get("Certificate"))
    check_issued(leaf, root)
    check({
        "another name of the CA": command.get("CAName") != name_of(root),
        "another serial number than the certificate's": command.get("SerialNumber") != f"{leaf.serial_number:x}",
        "the certificate is another device's": name_of(leaf) != module.uid,
        "it names another serial number of the device": name_of(leaf, NameOID.SERIAL_NUMBER)
        != f"Device {module.device_serial}",
        "the certificate is a CA's": is_ca(leaf),
        "the certificate is not valid now": not leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc,
        "a key for whoever has one": own is not None and "PrivateKey" in command,
    })  # fmt: skip
    key = own or open_key(command, module, leaf)
    check({"the key is not that of the certificate": _public(key.public_key()) != _public(leaf.public_key())})
    return leaf, key


def _public(key: Any) -> bytes:
    found: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return found


def open_key(command: Mapping[str, Any], module: Module, leaf: x509.Certificate) -> ec.EllipticCurvePrivateKey:
    """Raises: WrongAnswerError."""
    sealed = unbase64(command, "PrivateKey")
    secret = module.derive(bytes.fromhex(module.uid), b"uss/ztp", 32)
    try:
        der = AESGCM(secret).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], leaf.public_bytes(Encoding.DER))
        key = load_der_private_key(der, None)
    except (InvalidTag, ValueError, TypeError):
        raise WrongAnswerError("the private key cannot be opened") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise WrongAnswerError("the private key is of another kind")
    return key
