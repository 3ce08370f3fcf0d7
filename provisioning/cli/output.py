# ruff: noqa: PLC0415 - rich is imported when there is something to draw: --help stays quick
"""What commands print: tables for people, tab-separated lines for pipes, JSON for programs. Never a secret unasked."""

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.progress import Progress

    from provisioning.model.registry import Device, Group, Product

HIDDEN: Final = frozenset({"secret", "password"})
INTERNAL: Final = frozenset({"id", "product_id"})
NOTHING: Final = "-"
WRAPPED: Final = ("name", "subject")
READABLE: Final = 8
"""Characters that leave a wrapped column readable."""
GAP: Final = 2
NARROWEST: Final = 4
"""Characters of a column, with its gap: a terminal that has no room for them wraps the lines itself."""
LINE_BREAKS: Final = {ord(char): f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"}
"""Those that JSON does not escape."""


def is_terminal() -> bool:
    return sys.stdout.isatty()


def clean(value: object) -> str:
    """Text for a terminal, on one line: names come from devices, and could hold control sequences."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(value))


def plain(value: object) -> str:
    """A value as a person reads it."""
    match value:
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.isoformat(timespec="seconds")
        case dict() if value:
            return clean(json.dumps(value, ensure_ascii=False))
        case list() | tuple() if value:
            return ", ".join(map(plain, value))
        case None | "" | dict() | list() | tuple():
            return NOTHING
    return clean(value)


def to_json(thing: Mapping[str, object]) -> str:
    """On one line, also for readers that take every line break of Unicode for one."""
    return json.dumps(thing, ensure_ascii=False, separators=(",", ":"), default=_json).translate(LINE_BREAKS)


def print_json(thing: Mapping[str, object]) -> None:
    print(to_json(thing))


def _json(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON")


def counted(count: int, thing: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def note(text: str) -> None:
    """Something beside the data, for a person."""
    print(text, file=sys.stderr)


def described(
    thing: "Product | Group | Device", *, reveal: bool = False, without: Iterable[str] = ()
) -> dict[str, Any]:
    """The fields of a thing as commands show them; its secret only when `reveal`."""
    left_out = INTERNAL.union(without, () if reveal else HIDDEN)
    return {name: value for name, value in dataclasses.asdict(thing).items() if name not in left_out}


def made(thing: "Product | Group | Device", *, without: Iterable[str] = ()) -> dict[str, Any]:
    """The fields of a thing that was made a moment ago, with its secret. When that was, the database may know alone."""
    fields = described(thing, reveal=True, without=without)
    return {name: value for name, value in fields.items() if name != "created_at" or value is not None}


def show(fields: Mapping[str, object], *, as_json: bool) -> None:
    """One thing, a field a line."""
    if as_json:
        print_json(fields)
        return
    width = max(map(len, fields)) if is_terminal() else 0
    for name, value in fields.items():
        label = name.replace("_", " ").ljust(width)
        print(f"{label}  {plain(value)}" if width else f"{name}\t{plain(value)}")


def rows(
    columns: Sequence[str],
    things: Iterable[Mapping[str, object]],
    *,
    as_json: bool,
    numbers: bool = False,
    wrapped: Sequence[str] = WRAPPED,
) -> None:
    """Many things, each a line of `columns`. `numbers`: all columns but the first are. `wrapped`: as `table`."""
    if as_json:
        for thing in things:
            print_json(thing)
    elif not is_terminal():
        for thing in things:
            print("\t".join(plain(thing[column]) for column in columns))
    else:
        lines = ([plain(thing[column]) for column in columns] for thing in things)
        table(columns, lines, numbers=numbers, wrapped=wrapped)


def table(
    columns: Sequence[str],
    lines: Iterable[Sequence[str]],
    *,
    numbers: bool = False,
    wrapped: Sequence[str] = WRAPPED,
) -> None:
    """Draw a table on the terminal, of which nothing is cut. `numbers`: all but the first are aligned to the right.

    `wrapped`: columns that take several lines where the terminal is narrow; the others follow when that is not enough.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.width = max(console.width, NARROWEST * len(columns))
    body = [tuple(line) for line in lines]
    heads = [column.replace("_", "\n") for column in columns]
    widths = [
        max(map(cell_len, (*head.split("\n"), *(line[at] for line in body)))) + GAP for at, head in enumerate(heads)
    ]
    needed = (min(width, READABLE) if name in wrapped else width for name, width in zip(columns, widths, strict=True))
    fits = sum(needed) <= console.width  # where not, rich would cut what must not wrap
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for at, column in enumerate(columns):
        drawn.add_column(
            heads[at], justify="right" if numbers and at else "left", overflow="fold",
            no_wrap=fits and column not in wrapped,
        )  # fmt: skip
    for line in body:
        drawn.add_row(*map(Text, line))
    console.print(drawn)


def progress(what: str) -> "Progress":
    """A progress bar on stderr, silent where that is no terminal. Its task has a field `done`: what has been done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(), TextColumn(what), BarColumn(), TextColumn("{task.fields[done]}"), TimeElapsedColumn(),
        console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True,
        redirect_stdout=is_terminal(),  # else what is meant for a pipe would appear on the terminal
    )  # fmt: skip


def confirm(question: str, *, yes: bool) -> bool:
    """Ask a person; where there is none, the command itself was the decision."""
    import typer

    return yes or not (sys.stdin.isatty() and sys.stderr.isatty()) or typer.confirm(question, err=True)


def changed(outcome: str, name: str, fields: Mapping[str, object], *, as_json: bool) -> None:
    """What a change came to: `updated` or `unchanged`."""
    if as_json:
        print_json({"outcome": outcome, **fields})
    else:
        print(f"{outcome} {clean(name)}")


def deleted(kind: str, name: str, devices: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"outcome": "deleted", "type": kind, "name": name, "devices": devices})
    else:
        print(f"deleted {kind} {clean(name)}" + (f" and {counted(devices, 'device')}" if devices else ""))
