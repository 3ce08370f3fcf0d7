"""One folder per vendor; each speaks its vendor's words and nobody else does.

    wire.py   read, check, write: pure
    http.py   the routes, each four lines long
    mqtt.py   CONNECT -> claim; what the vendor's cloud answers to messages
    rows.py   the registry as NDJSON rows; fields.py, beside the folders: how their fields are checked

Beside them `x509`, which is nobody's: CRLs, OCSP, EST; and `register.py`: whose is a request, where two vendors have
one path?

A fifth vendor is one folder and one word in `protocols()`.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from provisioning.core.gateway import Gateways
from provisioning.core.login import LoginClaim
from provisioning.model.admission import Admission, Rejection
from provisioning.model.credential import Credential
from provisioning.model.identity import Identity
from provisioning.model.mqtt import Connect, Peer
from provisioning.model.refusal import Reason
from provisioning.model.registry import Device, Group, Product
from provisioning.model.spec import Forms, Spec
from provisioning.protocols.enos.mqtt import Enos
from provisioning.protocols.ioto.mqtt import Ioto
from provisioning.protocols.tencent.mqtt import Tencent
from provisioning.protocols.ublox.vendor import Ublox
from provisioning.settings import Settings

if TYPE_CHECKING:
    from aiohttp import web


class VendorProtocol(Protocol):
    """What Gatehouse asks of a vendor's protocol."""

    @property
    def name(self) -> str: ...
    @property
    def forms(self) -> Forms:
        """How the keys and secrets look that are made up for its products and devices."""
        ...

    def routes(self) -> "Iterable[web.RouteDef]":
        """The HTTP operations."""
        ...

    def read_row(self, row: dict[str, object]) -> Spec:
        """What an import row states. Raises: Refusal MALFORMED, with details `field` and `rule`."""
        ...

    def write_row(self, thing: Product | Group | Device) -> dict[str, object]:
        """The row that brings `thing` about again."""
        ...

    def read_user(self, name: str) -> Identity | None:
        """Whom a user name in this vendor's form names; None: not mine, ask the next protocol."""
        ...

    def read_connect(self, connect: Connect, peer: Peer, /) -> LoginClaim | None:
        """What a CONNECT claims, or the certificate that its peer has shown. None: not mine, ask the next protocol.

        Raises:
            Refusal: it is mine, and not well formed.
        """
        ...

    def admit(self, claim: LoginClaim, credential: Credential) -> Admission:
        """What the accepted device may do, and what it must be told."""
        ...

    def reject(self, reason: Reason) -> Rejection:
        """The CONNACK codes for a reason."""
        ...


def protocols(settings: Settings, gateways: Gateways | None = None) -> tuple[VendorProtocol, ...]:
    """All protocols, in the order in which they are asked whether a CONNECT is theirs.

    `gateways`: who serves what gateways ask for; without it they are not answered.
    """
    return (
        Enos(settings.enos), Tencent(settings.tencent, gateways), Ioto(settings.ioto, settings.tls.names),
        Ublox(settings.ublox),
    )  # fmt: skip


def shared_routes(vendors: Iterable[VendorProtocol]) -> "Iterable[web.RouteDef]":
    """The paths that vendors share, told apart."""
    from provisioning.protocols import register  # noqa: PLC0415 - for who serves: commands do without

    named = {vendor.name: vendor for vendor in vendors}
    tencent, ioto = named["tencent"], named["ioto"]
    assert isinstance(tencent, Tencent) and isinstance(ioto, Ioto)  # noqa: PT018
    return register.routes(tencent, ioto)
