"""The OpenSSL command line, as the judge of everything that is issued; and certificates as others make them."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from provisioning.model.refusal import Refusal

USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def run(*arguments: str | Path, data: bytes = b"") -> tuple[int, str]:
    """`openssl ARGUMENTS`: its exit code, and all that it said."""
    done = subprocess.run(["openssl", *map(str, arguments)], input=data, capture_output=True, timeout=60, check=False)
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


def openssl(*arguments: str | Path, data: bytes = b"") -> str:
    """As `run`; it must succeed."""
    code, said = run(*arguments, data=data)
    assert code == 0, f"openssl {' '.join(map(str, arguments))} ended with {code}:\n{said}"
    return said


def write(path: Path, *certificates: x509.Certificate) -> Path:
    path.write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in certificates))
    return path


def verify(
    directory: Path, leaf: x509.Certificate, anchor: x509.Certificate, *between: x509.Certificate, purpose: str = "",
    crl: bytes = b"", partial: bool = False,
) -> tuple[int, str]:  # fmt: skip
    """`openssl verify`: exit code and words. `crl`: PEM of all CRLs; the leaf is checked against them."""
    arguments: list[str | Path] = ["-x509_strict", "-CAfile", write(directory / "anchor.pem", anchor), "-no-CApath"]
    if between:
        arguments += ["-untrusted", write(directory / "between.pem", *between)]
    if purpose:
        arguments += ["-purpose", purpose]
    if crl:
        (directory / "crl.pem").write_bytes(crl)
        arguments += ["-CRLfile", directory / "crl.pem", "-crl_check"]
    if partial:
        arguments += ["-partial_chain"]
    return run("verify", *arguments, write(directory / "leaf.pem", leaf))


@dataclass(frozen=True)
class Made:
    """A certificate by somebody else, right or wrong, and its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def made(
    name: str | x509.Name, by: Made | None = None, *, ca: bool = True, path_length: int | None = None,
    usage: str | None = "key_cert_sign crl_sign", constraints: tuple[Any, Any] | None = None,
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (), key: Any = None, digest: Any = None, serial: int = 0,
    not_before: datetime = datetime(2024, 1, 1, tzinfo=UTC), not_after: datetime = datetime(2044, 1, 1, tzinfo=UTC),
) -> Made:  # fmt: skip
    """A certificate by `by`; None: self-signed. `usage`: the bits of keyUsage; `constraints`: permitted, excluded."""
    subject = name if isinstance(name, x509.Name) else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    key = key or ec.generate_private_key(ec.SECP256R1())
    signer = by.key if by else key
    signer_key = x509.SubjectKeyIdentifier.from_public_key(signer.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by else subject)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca, path_length if ca else None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer_key), critical=False)
    )
    if usage is not None:
        wanted = usage.split() if ca else ["digital_signature"]
        bits = dict.fromkeys(USAGES, False) | dict.fromkeys(wanted, True)
        builder = builder.add_extension(x509.KeyUsage(**bits), critical=True)
    if constraints:
        builder = builder.add_extension(x509.NameConstraints(*constraints), critical=True)
    for value, critical in extra:
        builder = builder.add_extension(value, critical=critical)
    return Made(builder.sign(signer, digest or hashes.SHA256()), key)


def outcome(call: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    """What the call returns, or the Refusal that it raises; anything else that it raises is a mistake."""
    try:
        return call(*arguments, **more)
    except Refusal as refused:
        return refused
