# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""Runs the work of a command: settings, event loop, registry. What goes wrong becomes one line and an exit code."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from provisioning.model.registry import Device, Group, Product
    from provisioning.model.spec import DeviceSpec, GroupSpec, ProductSpec, Spec
    from provisioning.protocols import VendorProtocol
    from provisioning.settings import Settings
    from provisioning.store.database import Database

T = TypeVar("T")

FAILED: Final = 1
CANNOT: Final = 2
INTERRUPTED: Final = 130
CLEARABLE: Final = frozenset({"name", "timezone", "client_authority"})


class Failure(Exception):  # noqa: N818 - an answer to a person, not a mistake of ours
    """What was asked for cannot be done; the text says why."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What a command works with: the settings, the open registry, the protocol that was asked for."""

    settings: "Settings"
    database: "Database"
    vendor: "VendorProtocol"

    def product(self, **stated: Any) -> "ProductSpec":
        """What is stated of a product (None: not stated), checked as a row of its protocol.

        Raises:
            Failure, Refusal MALFORMED: a value is not of its form.
        """
        from provisioning.model.registry import Product
        from provisioning.model.spec import ProductSpec

        given = _given(stated)
        self._check(Product(**{"protocol": self.vendor.name, "secret": ""} | given), given)
        return ProductSpec(protocol=self.vendor.name, forms=self.vendor.forms, **given)

    def group(self, **stated: Any) -> "GroupSpec":
        """As `product`, of an enrolment group."""
        from provisioning.model.registry import Group
        from provisioning.model.spec import GroupSpec

        given = _given(stated)
        kind = type(self._check(Group(**{"protocol": self.vendor.name, "password": ""} | given), given))
        assert issubclass(kind, GroupSpec)
        return kind(protocol=self.vendor.name, **given)

    def device(self, **stated: Any) -> "DeviceSpec":
        """As `product`, of a device."""
        from provisioning.model.lifecycle import State
        from provisioning.model.registry import Device
        from provisioning.model.spec import DeviceSpec

        given = _given(stated)
        kind = type(self._check(Device(protocol=self.vendor.name, state=State.ALLOCATED, **given), given))
        assert issubclass(kind, DeviceSpec)
        return kind(protocol=self.vendor.name, forms=self.vendor.forms, **given)

    def _check(self, thing: "Product | Group | Device", given: dict[str, Any]) -> "Spec":
        """What the protocol has no field for would be kept, and mean nothing."""
        spec = self.vendor.read_row(self.vendor.write_row(thing))
        for name, value in given.items():
            if value and getattr(spec, name) != value:
                kind = type(thing).__name__.lower()
                raise Failure(f"{name.replace('_', ' ')} is nothing that a {kind} has in protocol {self.vendor.name}")
        return spec


def _given(stated: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in stated.items() if value is not None}
    for name, value in given.items():
        if value == "" and name not in CLEARABLE:
            raise Failure(f"{name} must not be empty")
    return given


def run(work: "Callable[[Settings], Coroutine[Any, Any, T]]", **overrides: object) -> T:
    """Do the work on a new event loop, with the settings of this process; `overrides` win over them.

    Raises:
        typer.Exit: it failed, and stderr says why.
    """
    from provisioning.core.importing import words
    from provisioning.model.refusal import Refusal
    from provisioning.opening import StartError
    from provisioning.settings import SettingsError, load
    from provisioning.store.sealing import SealError

    debug = False
    try:
        settings = load(**overrides)
        debug = settings.log.level == "debug"
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(work(settings))
    except (SettingsError, StartError) as error:
        leave(CANNOT, error)
    except (Failure, SealError) as error:
        leave(FAILED, error)
    except Refusal as refusal:
        leave(FAILED, words(refusal))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except (typer.Exit, BrokenPipeError):
        raise
    except Exception as error:
        if debug:
            raise
        kind = type(error).__name__
        leave(FAILED, f"unexpected {kind}: {error} (GATEHOUSE_LOG__LEVEL=debug shows where)")


def on_registry(work: Callable[[Desk], Coroutine[Any, Any, T]], protocol: str = "enos", *, new: bool = False) -> T:
    """Do the work on the registry of the settings, migrated and open. As `run`.

    `new`: where there is none, one is made; otherwise that is an error, for an empty one answers nobody's question.
    """

    async def opened(settings: "Settings") -> T:
        from provisioning.opening import StartError, registry
        from provisioning.protocols import protocols

        vendors = {vendor.name: vendor for vendor in protocols(settings)}
        if protocol not in vendors:
            raise Failure(f"there is no protocol {protocol}; there is {', '.join(vendors)}")
        if new:
            announce_new(settings)
        elif is_new(settings):
            raise StartError(f"there is no database in {settings.data_dir.absolute()}: name the data directory of the "
                             "service by GATEHOUSE_DATA_DIR; `gatehouse serve` makes a new one")  # fmt: skip
        async with registry(settings) as database:
            return await work(Desk(settings, database, vendors[protocol]))

    return run(opened)


def is_new(settings: "Settings") -> bool:
    """Would the embedded database have to be made first?"""
    if settings.database.url is not None:
        return False
    try:
        (settings.data_dir / "postgres" / "PG_VERSION").stat()
    except OSError as error:  # where something is in the way, whoever opens it says what
        return isinstance(error, FileNotFoundError)
    return False


def announce_new(settings: "Settings") -> None:
    """Say where a new database comes to be, if one does: the folder may not be the one that was meant."""
    from provisioning.cli.output import clean, note

    if is_new(settings):
        note(f"gatehouse: makes a new database in {clean(settings.data_dir.absolute())}")


def leave(code: int, why: object) -> NoReturn:
    """End the command with one line on stderr.

    Raises:
        typer.Exit: always.
    """
    from provisioning.cli.output import clean

    print(f"gatehouse: {clean(why)}", file=sys.stderr)
    raise typer.Exit(code)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    with suppress(ImportError):
        import uvloop

        return uvloop.new_event_loop
    return None


def raise_file_limit() -> None:
    """As far as the system lets us: each session holds a file descriptor."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
