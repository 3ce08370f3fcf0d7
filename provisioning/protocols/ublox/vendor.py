"""u-blox as Gatehouse sees it: a vendor whose devices come over HTTP alone."""

import uuid
from collections.abc import Iterable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from provisioning.core import generate
from provisioning.core.login import LoginClaim
from provisioning.model.admission import Admission, ConnackCodes, Rejection
from provisioning.model.credential import Credential
from provisioning.model.identity import Identity
from provisioning.model.mqtt import Connect, Peer
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Group, Product
from provisioning.model.spec import Forms, Spec
from provisioning.protocols.fields import refuse
from provisioning.protocols.ublox import rows, wire
from provisioning.sections import Ublox as Settings

if TYPE_CHECKING:
    from aiohttp import web

    from provisioning.protocols.ublox.http import Operations

NOT_AUTHORIZED: Final = ConnackCodes(5, 0x87)
CONNACKS: Final[Mapping[Reason, ConnackCodes]] = MappingProxyType(dict.fromkeys(Reason, NOT_AUTHORIZED))


def _uid() -> str:
    """Raises: Refusal MALFORMED: a root of trust has its uid from the factory."""
    raise refuse("rotPublicUID", "is missing")


def _root_secret() -> str:
    """Raises: Refusal ILLEGAL_TRANSITION: a root of trust keeps its secret for life."""
    raise Refusal(Reason.ILLEGAL_TRANSITION, state="a module with a root secret of its own", step="give it another one")


FORMS: Final = Forms(
    product_key=lambda: str(uuid.uuid4()), product_secret=generate.secret, device_key=_uid, device_secret=_root_secret,
    asset_id=generate.asset_id,
)  # fmt: skip


class Ublox:
    """The protocol, as `protocols.VendorProtocol` wants it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def name(self) -> str:
        return wire.PROTOCOL

    @property
    def forms(self) -> Forms:
        return FORMS

    @cached_property
    def _operations(self) -> "Operations":
        from provisioning.protocols.ublox.http import Operations  # noqa: PLC0415 - for who serves: commands do without

        return Operations(self._settings)

    def routes(self) -> "Iterable[web.RouteDef]":
        from provisioning.protocols.ublox import machine_http  # noqa: PLC0415 - as above

        return [*self._operations.routes(), *machine_http.routes()]

    def read_row(self, row: dict[str, object]) -> Spec:
        return rows.read_row(row)

    def write_row(self, thing: Product | Group | Device) -> dict[str, object]:
        return rows.write_row(thing)

    def read_user(self, name: str) -> Identity | None:  # noqa: ARG002 - nobody has a user name here
        return None

    def read_connect(self, connect: Connect, peer: Peer, /) -> LoginClaim | None:  # noqa: ARG002 - none is ours
        return None

    def admit(self, claim: LoginClaim, credential: Credential) -> Admission:
        raise AssertionError(f"{claim} was never ours: {credential.identity}")

    def reject(self, reason: Reason) -> Rejection:
        codes = CONNACKS[reason]
        return Rejection(reason=reason, code=codes.v3, code5=codes.v5)
