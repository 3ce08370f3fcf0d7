"""Root CAs: create, update, list, CRLs, devices, proof of possession, delete. Contract: sections 4.6, 5 and 7."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, NotRequired, TypedDict

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import AfterValidator, Field, WithJsonSchema

from provisioning.core import pki
from provisioning.core import roots as authorities
from provisioning.model.certificate import Certificate
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.root import Provisioned, Root, Standing
from provisioning.protocols.ublox import refusals, wire
from provisioning.protocols.ublox.call import Call
from provisioning.protocols.ublox.machine_wire import Kind
from provisioning.protocols.ublox.reading import MOST, CaName, Form, Integer, Paged
from provisioning.store import roots
from provisioning.store.lists import PAGE_SIZE, Page

TOO_MANY: Final = f"Bad Request. No more than {authorities.MOST} CAs are allowed"
IN_DEVICES: Final = "Request aborted. This CA is currently assigned to ROTPublicUID(s)"
IN_PROFILES: Final = "Request aborted. This CA is currently linked to DeviceProfileUID(s)"
LONGEST_CODE: Final = 64
"""Of a common name: RFC 5280, appendix A.1."""
STATUS: Final[Mapping[Standing, Literal["VALID", "PENDING", "REVOKED"]]] = {
    Standing.VALID: "VALID", Standing.PENDING: "PENDING", Standing.REVOKED: "REVOKED",
}  # fmt: skip


def _printable(code: str) -> str:
    if not (code.isprintable() and code.strip()):
        raise ValueError("has characters that cannot be printed")
    return code


CaDays = Annotated[Integer, Field(ge=1_825, le=3_650)]
DeviceDays = Annotated[Integer, Field(ge=30, le=3_650)]
RenewBefore = Annotated[Integer, Field(ge=1, le=365)]
Code = Annotated[
    str,
    Field(min_length=1, max_length=LONGEST_CODE),
    AfterValidator(_printable),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": LONGEST_CODE, "pattern": "^[!-~]*$"}),
]


class OneCa(Form):
    name: CaName = Field(alias="CAName")


class CreateCa(OneCa):
    ca_days: CaDays = Field(alias="CACertificateValidity")
    device_days: DeviceDays = Field(alias="DeviceCertificateValidity")
    renew_before: RenewBefore | None = Field(None, alias="RenewBeforeExpiration")


class UpdateCa(OneCa):
    renew_before: RenewBefore = Field(alias="RenewBeforeExpiration")


class GetCas(Paged):
    name: CaName | None = Field(None, alias="CAName")


class GetCrls(Form):
    names: Annotated[list[CaName], Field(min_length=1, max_length=MOST)] | None = Field(None, alias="CANames")


class GetCaDevices(Paged):
    name: CaName = Field(alias="CAName")


class GenerateProof(OneCa):
    code: Code = Field(alias="RegistrationCode")


class CreatedCa(TypedDict):
    CAName: str
    CACertificateValidity: int
    DeviceCertificateValidity: int
    Certificate: str
    CreatedDate: str


class Renewal(TypedDict):
    RenewBeforeExpiration: NotRequired[int]


class Ca(CreatedCa, Renewal):
    ExpirationDate: str


class Cas(wire.Paging):
    CAs: list[Ca]


class Crl(TypedDict):
    CAName: str
    CRL: str
    SerialNumbers: list[str]
    ThisUpdate: str
    NextUpdate: str


class Crls(TypedDict):
    CRLs: list[Crl]


class CaDevice(TypedDict):
    ROTPublicUID: str
    SerialNumber: str
    ExpirationDate: str
    Status: Literal["VALID", "PENDING", "REVOKED"]


class CaDevices(wire.Paging):
    Devices: list[CaDevice]


class ProofOfPossession(TypedDict):
    CAName: str
    PoPCertificate: str


@dataclass(frozen=True, slots=True)
class Published:
    """A root CA and its CRL in DER."""

    root: Root
    crl: bytes


@dataclass(frozen=True, slots=True)
class Proof:
    root: Root
    certificate: Certificate


# --- verbs -----------------------------------------------------------------------------------------------------------


async def create(call: Call, asked: CreateCa) -> Root:
    """Raises: Refusal UNSUPPORTED, MALFORMED, LIMIT_REACHED, DUPLICATE with field `CAName`."""
    if asked.renew_before is not None and not call.account.certificates:
        raise Refusal(Reason.UNSUPPORTED, account=call.account.key)
    if asked.device_days > asked.ca_days:
        raise refusals.invalid("DeviceCertificateValidity")
    try:
        return await authorities.create(
            call.tx, call.account, asked.name, now=call.now, ca_days=asked.ca_days, device_days=asked.device_days,
            renew_before=asked.renew_before,
        )  # fmt: skip
    except Refusal as refusal:
        if refusal.reason is Reason.LIMIT_REACHED:
            raise Refusal(refusal.reason, message=TOO_MANY) from None
        if refusal.reason is Reason.DUPLICATE:
            raise Refusal(refusal.reason, field="CAName") from None
        raise


async def update(call: Call, asked: UpdateCa) -> None:
    """Raises: Refusal UNKNOWN."""
    await roots.set_renewal(call.tx, await lock(call, asked.name), asked.renew_before)


async def get(call: Call, asked: GetCas) -> Page[Root]:
    """In the order of their creation; none for a name that is not the account's."""
    found = await roots.of_account(call.tx, call.account.id, None if asked.name is None else [asked.name])
    offset = (asked.number - 1) * PAGE_SIZE
    return Page(found[offset : offset + PAGE_SIZE], asked.number, len(found))


async def get_crls(call: Call, asked: GetCrls) -> list[Published]:
    """As they must be at this moment; none for a name that is not the account's."""
    found = await roots.of_account(call.tx, call.account.id, asked.names or None)
    ids = [each.id for each in found]
    await authorities.refresh_crls(call.tx, now=call.now, among=ids)
    made = await roots.crls(call.tx, ids)
    return [Published(each, made[each.id]) for each in found if each.id in made]


async def get_devices(call: Call, asked: GetCaDevices) -> Page[Provisioned]:
    """In the order of their ids; none for a name that is not the account's."""
    root = await roots.find(call.tx, call.account.id, asked.name)
    if root is None:
        return Page([], asked.number, 0)
    return await roots.provisioned(call.tx, root, asked.number, install=Kind.INSTALL_CERTIFICATE)


async def prove_possession(call: Call, asked: GenerateProof) -> Proof:
    """Raises: Refusal UNKNOWN; ILLEGAL_TRANSITION, when the CA has expired."""
    root = await find(call, asked.name)
    return Proof(root, await authorities.prove_possession(call.tx, root, asked.code, now=call.now))


async def delete(call: Call, asked: OneCa) -> None:
    """Raises: Refusal UNKNOWN, IN_USE."""
    root = await lock(call, asked.name)
    uses = await roots.uses(call.tx, root)
    if uses.by_module or uses.by_profile:
        raise Refusal(Reason.IN_USE, message=IN_DEVICES if uses.by_module else IN_PROFILES)
    await authorities.delete(call.tx, root, now=call.now)


async def find(call: Call, name: str) -> Root:
    """The account's root CA, which nobody deletes until the transaction ends. Raises: Refusal UNKNOWN."""
    return _found(await roots.keep(call.tx, call.account.id, name), name)


async def lock(call: Call, name: str) -> Root:
    """As `find`; nobody comes to refer to it, either. Raises: Refusal UNKNOWN."""
    return _found(await roots.lock(call.tx, call.account.id, name), name)


def _found(root: Root | None, name: str) -> Root:
    if root is None:
        raise Refusal(Reason.UNKNOWN, authority=name)
    return root


# --- writers ---------------------------------------------------------------------------------------------------------


def write_created(root: Root) -> CreatedCa:
    return {
        "CAName": root.name, "CACertificateValidity": root.ca_days, "DeviceCertificateValidity": root.device_days,
        "Certificate": pki.write_pem(root.certificate), "CreatedDate": wire.write_time(root.created_at),
    }  # fmt: skip


def write_cas(found: Page[Root]) -> Cas:
    return {"CAs": [_write_ca(each) for each in found.records], **wire.write_paging(found.number, found.total)}


def _write_ca(root: Root) -> Ca:
    renewal: Renewal = {} if root.renew_before is None else {"RenewBeforeExpiration": root.renew_before}
    return {
        "CAName": root.name, "CACertificateValidity": root.ca_days, "DeviceCertificateValidity": root.device_days,
        **renewal, "Certificate": pki.write_pem(root.certificate), "CreatedDate": wire.write_time(root.created_at),
        "ExpirationDate": wire.write_time(root.not_after),
    }  # fmt: skip


def write_crls(found: Sequence[Published]) -> Crls:
    return {"CRLs": [_write_crl(each) for each in found]}


def _write_crl(published: Published) -> Crl:
    crl = x509.load_der_x509_crl(published.crl)
    assert crl.next_update_utc is not None, "we state it in all of them"
    return {
        "CAName": published.root.name, "CRL": crl.public_bytes(Encoding.PEM).decode(),
        "SerialNumbers": [pki.write_serial(each.serial_number) for each in crl],
        "ThisUpdate": wire.write_time(crl.last_update_utc), "NextUpdate": wire.write_time(crl.next_update_utc),
    }  # fmt: skip


def write_devices(found: Page[Provisioned]) -> CaDevices:
    return {"Devices": [_write_device(each) for each in found.records], **wire.write_paging(found.number, found.total)}


def _write_device(device: Provisioned) -> CaDevice:
    return {
        "ROTPublicUID": device.uid, "SerialNumber": device.serial,
        "ExpirationDate": wire.write_time(device.not_after), "Status": STATUS[device.standing],
    }  # fmt: skip


def write_proof(proof: Proof) -> ProofOfPossession:
    return {"CAName": proof.root.name, "PoPCertificate": pki.write_pem(proof.certificate.der)}
