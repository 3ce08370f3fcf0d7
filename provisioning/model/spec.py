"""What an administrator states of the registry. None: not stated; it stays as it is, or gets its default when new."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Forms:
    """How the keys and secrets look that are made up for a vendor's devices."""

    product_key: Callable[[], str]
    product_secret: Callable[[], str]
    device_key: Callable[[], str]
    device_secret: Callable[[], str]
    asset_id: Callable[[], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductSpec:
    protocol: str
    key: str
    secret: str | None = field(default=None, repr=False)
    name: str | None = None
    dynamic_activation: bool | None = None
    auto_create: bool | None = None
    certificate_login: bool | None = None
    register_limit: int | None = None
    """0: no limit."""
    client_authority: str | None = None
    """Empty: none."""
    demo: bool | None = None
    forms: Forms | None = field(default=None, repr=False, compare=False)
    """Of what is made up when the product is new; None: the house's own."""
    must_exist: bool = False
    """Its key alone does not make a product, for it is made of the secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSpec:
    protocol: str
    key: str
    password: str | None = field(default=None, repr=False)
    product: str | None = None
    name: str | None = None
    auto_register: bool | None = None
    auto_activation: bool | None = None
    freshness: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSpec:
    """A device by its product and key, by its group and serial number, or by both."""

    protocol: str
    product: str | None = None
    key: str | None = None
    secret: str | None = field(default=None, repr=False)
    group: str | None = None
    serial: str | None = None
    asset: str | None = None
    name: str | None = None
    name_i18n: dict[str, str] | None = None
    timezone: str | None = None
    disabled: bool | None = None
    self_registered: bool | None = None
    """Counts when the device is new."""
    forms: Forms | None = field(default=None, repr=False, compare=False)
    """Of what is made up when the device is new; None: the house's own."""


Spec = ProductSpec | GroupSpec | DeviceSpec
