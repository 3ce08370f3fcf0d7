"""provisioning/cli/simulation_ublox*.py: what modules and applications could not use, is a wrong answer."""

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from provisioning.cli.simulation import WrongAnswerError
from provisioning.cli.simulation_ublox import Turns, read
from provisioning.cli.simulation_ublox_checks import Module, check_downlink, check_root, decrypt, install
from provisioning.core import pki
from tests.ublox import ROOT_SECRET, sign

VECTORS = json.loads((Path(__file__).parents[2] / "vectors.json").read_text("utf-8"))["ublox"]
UID = "0002000089282257"
MODULE = Module(UID, 0, ROOT_SECRET, "S1")
NOW = datetime(2030, 1, 1, tzinfo=UTC)
CA_KEY, OTHER_CA_KEY, KEY = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))


def certificate(
    common_name: str = UID, serial_number: str = "Device S1", *, key: ec.EllipticCurvePrivateKey = KEY,
    signer: ec.EllipticCurvePrivateKey = CA_KEY, ca: bool = False, days: int = 30, serial: int = 0xAB,
) -> x509.Certificate:  # fmt: skip
    more = [x509.NameAttribute(NameOID.SERIAL_NUMBER, serial_number)] if serial_number else []
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name), *more])
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sim-1")])
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), serial, NOW, NOW + timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    return builder.sign(signer, hashes.SHA256())


ROOT = certificate("sim-1", "", key=CA_KEY, ca=True)
LEAF = certificate()


def pem(found: x509.Certificate) -> str:
    return found.public_bytes(Encoding.PEM).decode()


def sealed(leaf: x509.Certificate, key: Any = KEY, secret: bytes = ROOT_SECRET) -> str:
    module = Module(UID, 0, secret, "")
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    wrap = AESGCM(module.derive(bytes.fromhex(UID), b"uss/ztp", 32))
    return base64.b64encode(bytes(12) + wrap.encrypt(bytes(12), der, leaf.public_bytes(Encoding.DER))).decode()


def command(leaf: x509.Certificate = LEAF, **more: object) -> dict[str, object]:
    return {"Certificate": pem(leaf), "CAName": "sim-1", "SerialNumber": "ab", "PrivateKey": sealed(leaf), **more}


def test_the_module_signs_and_encrypts_as_the_contract_has_it() -> None:
    body = {"ROTPublicUID": UID, "Counter": 1, "Applied": ["é"]}
    assert MODULE.sign(body) == sign(body, UID)
    for vector in VECTORS["e2e_uplink_message"]:
        inputs = vector["inputs"]
        header = bytes.fromhex(inputs["EncryptedHeader"])
        message = MODULE.encrypt(header, inputs["plaintext_utf8"].encode())
        assert (header + message).hex() == vector["expected"], vector["name"]
    assert MODULE.header(16, bytes.fromhex("621f7593c47f"), 0).hex() == "1101000089282257621f7593c47f0000"
    assert [MODULE.header(length, b"\1\2\3", 5).hex() for length in (12, 11)] == [
        "210100008928225701020005", "2101000089282257010005"
    ]  # fmt: skip


def test_what_is_encrypted_is_read_with_the_answers_parameters() -> None:
    vector = VECTORS["e2e_uplink_protection"][0]
    message = MODULE.encrypt(bytes.fromhex(vector["inputs"]["EncryptedHeader"]), b"hello")
    good = vector["expected"]
    assert decrypt(good, message) == b"hello"
    bad: list[dict[str, object]] = [
        {"Key": good["Nonce"]}, {"Key": "?"}, {"Nonce": None}, {"Nonce": ""}, {"CipherSuite": "AES_256_CCM"},
        {"MACLength": 64}, {"MACLength": None},
    ]  # fmt: skip
    for each in bad:
        with pytest.raises(WrongAnswerError):
            decrypt(good | each, message)


def test_keys_of_the_downlink() -> None:
    kiv = bytes.fromhex("11010100" + UID[8:] + "0102030405060007")
    names = {"EncryptionKey": b"uss/e2e-dn-enc", "AuthenticationKey": b"uss/e2e-dn-mac", "AESIV": b"uss/e2e-dn-iv"}
    good: dict[str, Any] = {
        name: base64.b64encode(MODULE.derive(kiv, info)).decode() for name, info in names.items()
    } | {
        "KIV": base64.b64encode(kiv).decode(), "MACLength": 128, "KeyLength": 128, "AuthKeyLength": 128,
        "CipherSuite": "AES_128_CS1_HMAC_SHA256", "ROTPublicUID": 2000089282257,
    }  # fmt: skip
    assert check_downlink(good, MODULE) == kiv
    for each in (
        {"KIV": base64.b64encode(kiv[:4] + bytes(12)).decode()}, {"KIV": base64.b64encode(kiv[:-1]).decode()},
        {"KIV": 1}, {"ROTPublicUID": UID}, {"CipherSuite": "AES_128_CCM"}, {"KeyLength": 256},
        {"EncryptionKey": good["AESIV"]}, {"AuthenticationKey": good["AESIV"]}, {"AESIV": good["EncryptionKey"]},
    ):  # fmt: skip
        with pytest.raises(WrongAnswerError):
            check_downlink(good | each, MODULE)


def test_a_certificate_that_a_module_can_use() -> None:
    leaf, key = install(command(), MODULE, ROOT, None, NOW)
    assert (leaf, key.private_numbers()) == (LEAF, KEY.private_numbers())
    own = command()
    del own["PrivateKey"]
    assert install(own, MODULE, ROOT, KEY, NOW) == (LEAF, KEY)


RSA_KEY = pki.new_key(pki.KeyType.RSA2048)


@pytest.mark.parametrize(
    ("given", "own", "words"),
    [
        (command(Certificate="x"), None, "no certificate"), (command(Certificate=None), None, "no certificate"),
        (command(certificate(signer=OTHER_CA_KEY)), None, "not issued by the root CA"),
        (command(CAName="sim-2"), None, "another name of the CA"),
        (command(SerialNumber="AB"), None, "another serial number than"),
        (command(certificate("0002000089282258")), None, "another device's"),
        (command(certificate(serial_number="S1")), None, "another serial number of the device"),
        (command(certificate(serial_number="")), None, "another serial number of the device"),
        (command(certificate(ca=True)), None, "is a CA's"),
        (command(certificate(days=0)), None, "not valid now"),
        (command(), KEY, "a key for whoever has one"),
        (command(PrivateKey=None), None, "PrivateKey is no Base64"),
        (command(PrivateKey=""), None, "cannot be opened"),
        (command(PrivateKey=sealed(LEAF, secret=bytes(32))), None, "cannot be opened"),
        (command(PrivateKey=sealed(ROOT)), None, "cannot be opened"),
        (command(PrivateKey=sealed(LEAF, OTHER_CA_KEY)), None, "the key is not that"),
        (command(PrivateKey=sealed(LEAF, RSA_KEY)), None, "of another kind"),
    ],
)  # fmt: skip
def test_a_certificate_that_a_module_could_not_use(
    given: dict[str, object], own: ec.EllipticCurvePrivateKey | None, words: str
) -> None:
    with pytest.raises(WrongAnswerError, match=words):
        install(given, MODULE, ROOT, own, NOW)


def test_a_key_of_its_own_must_be_the_certificates() -> None:
    given = command()
    del given["PrivateKey"]
    with pytest.raises(WrongAnswerError, match="the key is not that"):
        install(given, MODULE, ROOT, OTHER_CA_KEY, NOW)


def test_the_root_ca() -> None:
    assert check_root(pem(ROOT), "sim-1", NOW) == ROOT
    for found, name, now, words in (
        (ROOT, "sim-2", NOW, "another name"), (ROOT, "sim-1", NOW + timedelta(days=30), "not valid now"),
        (certificate("sim-1", "", key=CA_KEY), "sim-1", NOW, "is no CA"),
        (certificate("sim-1", "", key=CA_KEY, ca=True, signer=KEY), "sim-1", NOW, "not issued by"),
    ):  # fmt: skip
        with pytest.raises(WrongAnswerError, match=words):
            check_root(pem(found), name, now)


def test_an_answer_must_be_200() -> None:
    assert read(200, "[1]") == [1]
    with pytest.raises(WrongAnswerError, match="HTTP 429: nonsense"):
        read(429, "nonsense")


async def test_turns() -> None:
    """So many a second, whoever takes them."""
    loop = asyncio.get_running_loop()
    turns, started = Turns(100), loop.time()
    await asyncio.gather(*(turns.take() for _ in range(10)))
    assert loop.time() - started >= 9 / 100
    free, started = Turns(0), loop.time()
    await asyncio.gather(*(free.take() for _ in range(1_000)))
    assert loop.time() - started < 1
