"""What a login is judged by."""

from dataclasses import dataclass, field

from provisioning.model.identity import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductCredential:
    """The product's side of a login."""

    id: int
    secret: str = field(repr=False)
    dynamic_activation: bool
    auto_create: bool
    certificate_login: bool = False
    client_authority: str = ""
    """Name of the authority whose certificates its devices may bring along; empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCredential:
    """The device's side of a login."""

    id: int
    secret: str = field(repr=False)
    epoch: int
    """Counts the secrets that the device has had: a session of an older one must end."""
    asset: str
    disabled: bool
    activated: bool
    """It has logged in with its own secret before."""
    account: str = ""
    """Of whoever has claimed the device; empty: nobody has."""


@dataclass(frozen=True, slots=True)
class Credential:
    """Everything the registry knows of an identity that a login needs; None: there is no such product or device."""

    identity: Identity
    product: ProductCredential | None = None
    device: DeviceCredential | None = None
