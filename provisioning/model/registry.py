"""Product, enrolment group and device as the registry knows them. Secrets are plain here and sealed in the store."""

from dataclasses import dataclass, field
from datetime import datetime

from provisioning.model.identity import Identity
from provisioning.model.lifecycle import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A kind of device. Its secret proves a device that has none of its own yet."""

    protocol: str
    key: str
    secret: str = field(repr=False)
    name: str = ""
    dynamic_activation: bool = False
    auto_create: bool = False
    """A dynamic activation creates a device that is not registered yet."""
    certificate_login: bool = False
    """Its devices log in over TLS with a certificate of their own, and not without one."""
    register_limit: int | None = None
    """The most devices that may register themselves; None: no limit."""
    client_authority: str = ""
    """Name of the authority whose certificates its devices may bring along when they register; empty: none."""
    demo: bool = False
    """Loaded from the demo fleet, whose secrets are public."""
    id: int = 0
    created_at: datetime | None = None
    devices: int = 0
    """How many devices the product has; filled in by listings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Devices that enrol with one password, and where they go."""

    protocol: str
    key: str
    password: str = field(repr=False)
    product: str = ""
    """Key of the product in which the group's devices are allocated; empty: none yet."""
    name: str = ""
    auto_register: bool = True
    """An unknown serial number registers itself."""
    auto_activation: bool = False
    """A registered device is allocated without an administrator."""
    certificate_login: bool = False
    """Of its product."""
    freshness: int = 900
    """How old or how early a signature may be, in seconds; 0: not checked (devices without a clock)."""
    id: int = 0
    product_id: int | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device. `product`, `key` and `secret` are empty until it is allocated."""

    protocol: str
    state: State
    product: str = ""
    key: str = ""
    secret: str = field(default="", repr=False)
    group: str = ""
    serial: str = ""
    """Serial number, unique in its group; empty for a device that does not enrol."""
    asset: str = ""
    """Asset id: the name by which the vendor's applications know the device."""
    name: str = ""
    name_i18n: dict[str, str] = field(default_factory=dict)
    timezone: str = ""
    disabled: bool = False
    certificate_login: bool = False
    """Of its product."""
    self_registered: bool = False
    """It has registered itself with the product's secret, and counts towards the product's limit."""
    activations: int = 0
    """Activation sessions since the last reset."""
    id: int = 0
    created_at: datetime | None = None
    activated_at: datetime | None = None
    online: bool = False
    last_seen: datetime | None = None

    @property
    def identity(self) -> Identity:
        return Identity(self.protocol, self.product, self.key)
