"""Listings of any length: a page in memory at a time, none of them read while something is printed."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from provisioning.cli import output
from provisioning.cli.run import Desk

if TYPE_CHECKING:
    from provisioning.store.database import Tx

Thing = TypeVar("Thing")

PAGE: Final = 1_000
ON_SCREEN: Final = 100
"""How many a person is shown who did not say how many."""


async def everything(
    desk: Desk,
    columns: Sequence[str],
    page: "Callable[[Tx, Thing | None, int], Awaitable[list[Thing]]]",
    *,
    limit: int | None,
    as_json: bool,
    describe: Callable[[Any], Mapping[str, object]] = output.described,
    wrapped: Sequence[str] = output.WRAPPED,
) -> None:
    """Print what `page` (transaction, the last of the page before, size) gives, until there is no more."""
    drawn = output.is_terminal() and not as_json
    wanted = ON_SCREEN if drawn and limit is None else limit
    found: list[Thing] = []
    last: Thing | None = None
    count = 0
    while wanted is None or count < wanted:
        size = PAGE if wanted is None else min(PAGE, wanted - count)
        async with desk.database.read() as tx:
            things = await page(tx, last, size)
        count += len(things)
        if drawn:
            found += things
        else:
            output.rows(columns, map(describe, things), as_json=as_json)
        if len(things) < size:
            break
        last = things[-1]
    if drawn:
        output.rows(columns, map(describe, found), as_json=False, wrapped=wrapped)
        if limit is None and count == ON_SCREEN:
            output.note(f"the first {ON_SCREEN}; --limit shows more")
