"""What an operation is, and what it has at hand. See `routes` for all of them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final, Generic, TypeVar

from provisioning.core.access import Access
from provisioning.model.account import Account
from provisioning.protocols.ublox.reading import Form
from provisioning.sections import Ublox as Settings
from provisioning.store.database import Database, Tx


class Guard(Enum):
    """Who may call an operation."""

    OPEN = "open"
    """Everybody: it proves for itself who asks."""
    TOKEN = "token"  # noqa: S105 - no secret
    """Whoever shows an AuthToken."""
    SUBSCRIBED = "subscribed"
    """The same, and the account may manage certificates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, on its way through an operation."""

    tx: Tx
    """The transaction of the whole operation; committed when the verb returns, rolled back when it raises."""
    account: Account
    """Who asks. Of an open operation: NOBODY."""
    now: datetime
    database: Database
    """For what must be durable whatever becomes of the operation."""
    access: Access
    settings: Settings


NOBODY: Final = Account(id=0, key="")

F = TypeVar("F", bound=Form)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Operation(Generic[F, R]):
    """A row of the table of routes."""

    path: str
    guard: Guard
    reader: type[F]
    """The form of the body."""
    verb: Callable[[Call, F], Awaitable[R]]
    writer: Callable[[R], Any]
    """Makes the reply of what the verb returns; its return type is the reply's schema in the OpenAPI document."""
    marked: bool = False
    """The key of its messages is `Message`."""
    get: bool = False
    """It has no body, and may be asked by GET."""
    csv: Callable[[bytes], F] | None = None
    """Reads a body of `application/octet-stream`, where the operation takes one."""

    @property
    def name(self) -> str:
        """In the log: `device.whitelist.get`."""
        return self.path.strip("/").replace("/", ".")


AnyOperation = Operation[Any, Any]
