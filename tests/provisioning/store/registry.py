"""Products, groups and devices that the tests of the store and of the core put into the registry."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from provisioning.model.identity import Identity
from provisioning.model.lifecycle import State
from provisioning.model.registry import Device, Group, Product
from provisioning.store import devices, groups, products
from provisioning.store.database import Database, Tx

PROTOCOL = "proto"


async def add_product(tx: Tx, key: str = "pk", **more: Any) -> Product:
    return await products.add(tx, Product(protocol=PROTOCOL, key=key, secret=f"secret of {key}", **more))


async def add_group(tx: Tx, key: str = "g", product: Product | None = None, **more: Any) -> Group:
    new = Group(
        protocol=PROTOCOL, key=key, password=f"password of {key}", product=product.key if product else "",
        product_id=product.id if product else None, **more,
    )  # fmt: skip
    return await groups.add(tx, new)


async def add_device(tx: Tx, product: Product, key: str = "dk", group: Group | None = None, **more: Any) -> Device:
    """An allocated device; with a `serial` and a group it enrols."""
    fields = {"state": State.ALLOCATED, "asset": f"asset of {key}", "secret": f"secret of {key}"} | more
    new = Device(protocol=PROTOCOL, product=product.key, key=key, group=group.key if group else "", **fields)
    (added,) = await devices.add_many(tx, [(new, product.id, group.id if group else None)])
    return added


@dataclass(frozen=True, slots=True)
class Fleet:
    """A product with a device, and a group with an enrolled one."""

    product: Product
    group: Group
    device: Device
    enrolled: Device

    @property
    def identity(self) -> Identity:
        return self.device.identity


async def add_fleet(database: Database, **product: Any) -> Fleet:
    async with database.begin() as tx:
        of = await add_product(tx, dynamic_activation=True, **product)
        group = await add_group(tx, product=of, auto_activation=True)
        device = await add_device(tx, of)
        enrolled = await add_device(tx, of, "dk-sn", group, serial="SN")
    return Fleet(of, group, device, enrolled)


def identity(device: str = "dk", product: str = "pk") -> Identity:
    return Identity(PROTOCOL, product, device)


@asynccontextmanager
async def locked_out(server: str, url: str) -> AsyncIterator[None]:
    """Nobody gets into the database, and who was in it is thrown out."""
    name = urlsplit(url).path.removeprefix("/")
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        try:
            await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
            yield
        finally:
            await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    finally:
        await connection.close()


async def execute(database: Database, statement: str, *values: object) -> None:
    """What a person at a psql prompt does, past our code."""
    connection = await asyncpg.connect(database.url)
    try:
        await connection.execute(statement, *values)
    finally:
        await connection.close()
