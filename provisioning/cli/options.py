# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""What several commands take."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from provisioning.model.registry import Device
    from provisioning.store.database import Tx

Json = Annotated[bool, typer.Option("--json", help="JSON for programs: one object per line.")]
Protocol = Annotated[str, typer.Option(help="Whose device protocol.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many; all, where the output is no terminal.")]
Reveal = Annotated[bool, typer.Option("--reveal", help="Show the secret.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. Nobody is asked where there is no terminal.")]
Cascade = Annotated[bool, typer.Option("--cascade", help="And what belongs to it.")]
Name = Annotated[str | None, typer.Option(help="A name for people.")]

ProductOfDevice = Annotated[
    str | None, typer.Argument(metavar="PRODUCT", help="Key of its product.", show_default=False)
]
DeviceKey = Annotated[str | None, typer.Argument(metavar="DEVICE", help="Its key in the product.", show_default=False)]
GroupOfDevice = Annotated[str | None, typer.Option("--group", help="Key of its enrolment group.")]
Serial = Annotated[str | None, typer.Option("--serial", help="Its serial number in the group.")]


@dataclass(frozen=True, slots=True)
class Address:
    """A device as commands name it: by product and key, or by group and serial number."""

    protocol: str
    product: str | None
    key: str | None
    group: str | None
    serial: str | None

    def __str__(self) -> str:
        return f"{self.product}/{self.key}" if self.key else f"{self.group}:{self.serial}"

    async def find(self, tx: "Tx") -> "Device":
        """Raises: Refusal UNKNOWN."""
        from provisioning.core import registry

        if self.product and self.key:
            return await registry.device(tx, self.protocol, self.product, self.key)
        return await registry.device_by_serial(tx, self.protocol, self.group or "", self.serial or "")


def address(protocol: str, product: str | None, key: str | None, group: str | None, serial: str | None) -> Address:
    """Raises: typer.BadParameter, unless it is a whole address."""
    if not ((product and key) or (group and serial and not product)):
        raise typer.BadParameter("name the device: PRODUCT DEVICE, or --group GROUP --serial SERIAL")
    return Address(
        protocol, product and product_key(protocol, product), key and device_key(protocol, key), group, serial
    )


def product_key(protocol: str, name: str) -> str:
    """The key of the product that a person names: where products have tokens, by its token too."""
    from provisioning.protocols.ioto import wire

    return wire.product_key(name) if protocol == wire.PROTOCOL else name


def device_key(protocol: str, name: str) -> str:
    """The key of the device that a person names: of what can be written in several ways, the one that is kept."""
    from provisioning.protocols.ublox import wire

    try:
        return wire.read_uid(name) if protocol == wire.PROTOCOL else name
    except ValueError:
        return name  # there is no such device, or a reader of rows says what is wrong


def new_product(protocol: str, name: str | None, secret: str | None) -> dict[str, Any]:
    """What is stated of a new product by the name and the secret that a person gives it, or does not.

    Raises:
        typer.BadParameter: where products have tokens and no other name, both are given, or a key in its place; where
            they are accounts.
    """
    from provisioning.core import generate
    from provisioning.protocols.ioto import wire
    from provisioning.protocols.ublox.wire import PROTOCOL as OF_ACCOUNTS

    if protocol == OF_ACCOUNTS:
        raise typer.BadParameter("its products are accounts: `gatehouse account create` makes one")
    if protocol != wire.PROTOCOL:
        return {"key": name, "secret": secret}
    if name and secret and name != secret:
        raise typer.BadParameter("its token is the name of such a product: give it alone")
    if name and wire.PRODUCT_KEY.fullmatch(name):
        raise typer.BadParameter("this is a product's key, which is made of its token: give the token")
    if "" in {name, secret}:
        raise typer.BadParameter("its token must not be empty")
    token = secret or name or generate.ulid()
    return {"key": wire.product_key(token), "secret": token, "certificate_login": True}
