"""The registry in bulk: what an administrator states is brought about, and repeating it changes nothing."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import TypeVar

from provisioning.core import enrol
from provisioning.core.generate import HOUSE, secret
from provisioning.model.events import DeviceDisabled, DeviceEnabled, DeviceRegistered
from provisioning.model.lifecycle import State
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Group, Product
from provisioning.model.spec import DeviceSpec, GroupSpec, ProductSpec
from provisioning.store import devices, groups, products, registrations
from provisioning.store.database import Tx

T = TypeVar("T")


class Outcome(StrEnum):
    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


def _or(stated: T | None, otherwise: T) -> T:
    return otherwise if stated is None else stated


async def put_product(tx: Tx, spec: ProductSpec) -> tuple[Outcome, Product]:
    """Create the product, or change what is stated of it.

    Raises:
        Refusal: UNKNOWN, when there is none, and what is stated does not make one.
    """
    old = await products.find(tx, spec.protocol, spec.key)
    if old is None and spec.must_exist:
        raise Refusal(Reason.UNKNOWN, product=spec.key)
    if old is None:
        new = Product(
            protocol=spec.protocol, key=spec.key, secret=spec.secret or (spec.forms or HOUSE).product_secret(),
            name=_or(spec.name, ""), dynamic_activation=_or(spec.dynamic_activation, False),
            auto_create=_or(spec.auto_create, False), certificate_login=_or(spec.certificate_login, False),
            register_limit=spec.register_limit or None, client_authority=_or(spec.client_authority, ""),
            demo=_or(spec.demo, False),
        )  # fmt: skip
        return Outcome.CREATED, await products.add(tx, new)
    new = replace(
        old, secret=_or(spec.secret, old.secret), name=_or(spec.name, old.name),
        dynamic_activation=_or(spec.dynamic_activation, old.dynamic_activation),
        auto_create=_or(spec.auto_create, old.auto_create),
        certificate_login=_or(spec.certificate_login, old.certificate_login), demo=_or(spec.demo, old.demo),
        register_limit=_or(spec.register_limit, old.register_limit) or None,
        client_authority=_or(spec.client_authority, old.client_authority),
    )  # fmt: skip
    if new == old:
        return Outcome.UNCHANGED, old
    await products.update(tx, new)
    return Outcome.UPDATED, new


async def put_group(tx: Tx, spec: GroupSpec) -> tuple[Outcome, Group]:
    """Create the group, or change what is stated of it.

    Raises:
        Refusal: UNKNOWN, when its product does not exist.
    """
    product = await _product(tx, spec.protocol, spec.product) if spec.product else None
    old = await groups.find(tx, spec.protocol, spec.key)
    if old is None:
        new = Group(
            protocol=spec.protocol, key=spec.key, password=_or(spec.password, secret()),
            product=product.key if product else "", product_id=product.id if product else None,
            name=_or(spec.name, ""), auto_register=_or(spec.auto_register, True),
            auto_activation=_or(spec.auto_activation, False), freshness=_or(spec.freshness, 900),
        )  # fmt: skip
        return Outcome.CREATED, await groups.add(tx, new)
    new = replace(
        old, password=_or(spec.password, old.password), name=_or(spec.name, old.name),
        product=product.key if product else old.product, product_id=product.id if product else old.product_id,
        auto_register=_or(spec.auto_register, old.auto_register),
        auto_activation=_or(spec.auto_activation, old.auto_activation), freshness=_or(spec.freshness, old.freshness),
    )  # fmt: skip
    if new == old:
        return Outcome.UNCHANGED, old
    await groups.update(tx, new)
    return Outcome.UPDATED, new


async def _product(tx: Tx, protocol: str, key: str) -> Product:
    if found := await products.find(tx, protocol, key):
        return found
    raise Refusal(Reason.UNKNOWN, product=key)


async def put_devices(tx: Tx, specs: Sequence[DeviceSpec]) -> list[tuple[Outcome, Device] | Refusal]:
    """Create the devices, or change what is stated of them; a result for each. One protocol at a time.

    A row that cannot be brought about is a Refusal in the result and hinders no other row; but a clash with somebody
    who writes at the same time, or with another device's serial number, raises DUPLICATE from the transaction and
    undoes all: try again one by one.
    """
    known = await _Known.read(tx, specs)
    results: list[tuple[Outcome, Device] | Refusal] = []
    fresh: list[tuple[int, Device]] = []
    seen: set[tuple[str | None, str | None]] = set()
    later: list[int] = []
    for at, spec in enumerate(specs):
        names = {(spec.product, spec.key)} if spec.key else {(spec.group, spec.serial)}
        if seen & names:  # the same device twice: the second row must see what the first has done
            later.append(at)
            results.append(Refusal(Reason.INTERNAL))
            continue
        seen |= names
        try:
            old = known.find(spec)
            if old is None:
                new = known.make(spec)
                fresh.append((at, new))
                results.append((Outcome.CREATED, new))
            else:
                results.append(await _change(tx, known, old, spec))
        except Refusal as refusal:
            results.append(refusal)
    added = await devices.add_many(tx, [(new, known.product_id(new), known.group_id(new)) for _, new in fresh])
    if registered := Counter(known.product_id(device) for device in added if device.self_registered and device.product):
        await registrations.count(tx, {at: count for at, count in registered.items() if at is not None})
    for (at, _), device in zip(fresh, added, strict=True):
        results[at] = (Outcome.CREATED, device)
        tx.emit(DeviceRegistered(device_id=device.id, identity=device.identity, serial=device.serial))
    for at in later:
        results[at] = (await put_devices(tx, [specs[at]]))[0]
    return results


async def _change(tx: Tx, known: "_Known", old: Device, spec: DeviceSpec) -> tuple[Outcome, Device]:
    new = replace(
        old, name=_or(spec.name, old.name), name_i18n=_or(spec.name_i18n, old.name_i18n),
        timezone=_or(spec.timezone, old.timezone), asset=_or(spec.asset, old.asset),
        disabled=_or(spec.disabled, old.disabled), group=_or(spec.group, old.group),
        serial=_or(spec.serial, old.serial), secret=_or(spec.secret, old.secret),
    )  # fmt: skip
    if spec.key and old.state is State.REGISTERED:
        new = enrol.outfit(new, spec.product or old.product, spec.key, spec.secret or "", spec.forms or HOUSE)
    if new == old:
        return Outcome.UNCHANGED, old
    if (current := await devices.lock(tx, old)) != old:  # somebody was faster
        return await _change(tx, known, current, spec)
    if (new.group, new.serial) != (old.group, old.serial):
        if not (new.group and new.serial):
            raise Refusal(Reason.MALFORMED, field="serial and group: give both")
        group_id = known.group_id(new)
        assert group_id is not None
        await devices.set_serial(tx, new, group_id)
    if new.state is not old.state:
        product_id = known.product_id(new)
        assert product_id is not None
        await enrol.allocate(tx, replace(new, state=old.state), new.product, product_id, key=new.key, secret=new.secret)
    elif new.secret != old.secret:
        enrol.allocated(old)
        await devices.set_secret(tx, new)
    if new.disabled != old.disabled:
        await devices.set_disabled(tx, new, disabled=new.disabled)
        happened = DeviceDisabled if new.disabled else DeviceEnabled
        tx.emit(happened(device_id=new.id, identity=new.identity, serial=new.serial))
    await devices.describe(tx, new)
    return Outcome.UPDATED, new


class _Known:
    """What the registry has of the products, groups and devices that some rows name."""

    def __init__(self) -> None:
        self.products: dict[str, Product] = {}
        self.groups: dict[str, Group] = {}
        self.by_key: dict[tuple[str, str], Device] = {}
        self.by_serial: dict[tuple[str, str], Device] = {}

    @classmethod
    async def read(cls, tx: Tx, specs: Sequence[DeviceSpec]) -> "_Known":
        known = cls()
        if not specs:
            return known
        protocol = specs[0].protocol
        keys, serials = defaultdict(list), defaultdict(list)
        for spec in specs:
            if spec.product and spec.key:
                keys[spec.product].append(spec.key)
            if spec.group and spec.serial:
                serials[spec.group].append(spec.serial)
        named = {spec.product for spec in specs if spec.product}
        known.groups = await groups.find_all(tx, protocol, [spec.group for spec in specs if spec.group])
        named |= {group.product for group in known.groups.values() if group.product}
        known.products = await products.find_all(tx, protocol, sorted(named))
        for product in known.products.values():
            found = await devices.by_keys(tx, product.id, keys[product.key]) if keys[product.key] else {}
            known.by_key |= {(product.key, key): device for key, device in found.items()}
        for group in known.groups.values():
            found = await devices.by_serials(tx, group, serials[group.key]) if serials[group.key] else {}
            known.by_serial |= {(group.key, serial): device for serial, device in found.items()}
        return known

    def find(self, spec: DeviceSpec) -> Device | None:
        """The device that the row names.

        Raises:
            Refusal: UNKNOWN for a product or group that does not exist, DUPLICATE when the names lead to two devices.
        """
        if spec.product and spec.product not in self.products:
            raise Refusal(Reason.UNKNOWN, product=spec.product)
        if spec.group and spec.group not in self.groups:
            raise Refusal(Reason.UNKNOWN, group=spec.group)
        by_key = self.by_key.get((spec.product or "", spec.key or ""))
        by_serial = self.by_serial.get((spec.group or "", spec.serial or ""))
        if by_serial and spec.key and by_serial.key and (by_serial.product, by_serial.key) != (spec.product, spec.key):
            raise Refusal(Reason.DUPLICATE, field="serial", serial=spec.serial)
        if by_key and by_serial and by_key.id != by_serial.id:
            raise Refusal(Reason.DUPLICATE, field="serial", serial=spec.serial)
        return by_key or by_serial

    def make(self, spec: DeviceSpec) -> Device:
        device = Device(
            protocol=spec.protocol, state=State.REGISTERED, group=spec.group or "", serial=spec.serial or "",
            asset=spec.asset or "", name=spec.name or "", name_i18n=spec.name_i18n or {},
            timezone=spec.timezone or "", disabled=bool(spec.disabled), self_registered=bool(spec.self_registered),
        )  # fmt: skip
        if not spec.product:
            return device
        return enrol.outfit(device, spec.product, spec.key or "", spec.secret or "", spec.forms or HOUSE)

    def product_id(self, device: Device) -> int | None:
        return self.products[device.product].id if device.product else None

    def group_id(self, device: Device) -> int | None:
        return self.groups[device.group].id if device.group else None
