# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""`gatehouse import` and `gatehouse export`: the registry as NDJSON. Neither holds more than a page of it."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Final

import typer

from provisioning.cli import output
from provisioning.cli.files import STANDARD, target, write_to
from provisioning.cli.options import Json
from provisioning.cli.run import FAILED, Desk, Failure, on_registry

if TYPE_CHECKING:
    from types import FrameType

    from provisioning.core.importing import Result, Summary
    from provisioning.model.registry import Device, Group, Product
    from provisioning.protocols import VendorProtocol
    from provisioning.store.database import Tx

PAGE: Final = 1_000
DRAW_EVERY: Final = 200


# --- import ----------------------------------------------------------------------------------------------------------


class Lines:
    """The lines of a file as bytes. One that is longer than `longest` comes cut, just too long to be taken."""

    def __init__(self, file: BinaryIO, longest: int, name: str) -> None:
        self._file = file
        self._name = name
        self._longest = longest
        self.read = 0
        """Bytes so far."""

    def __iter__(self) -> Iterator[bytes]:
        while line := self._readline():
            self.read += len(line)
            rest = line
            while not rest.endswith(b"\n") and len(rest) > self._longest:
                rest = self._readline()
                self.read += len(rest)
            yield line.rstrip(b"\r\n")

    def _readline(self) -> bytes:
        try:
            return self._file.readline(self._longest + 2)
        except OSError as error:
            raise Failure(f"cannot read {self._name} to its end: {error.strerror or error}") from error


class Reporter:
    """Says what became of the rows: all of them to programs, the failed ones to people."""

    def __init__(self, *, as_json: bool, verbose: bool) -> None:
        self._as_json = as_json
        self._verbose = verbose

    def __call__(self, result: "Result") -> None:
        if not (self._as_json or self._verbose or result.outcome == "failed"):
            return
        try:
            self._print(result)
        except BrokenPipeError:
            # Not as it is: in the midst of a transaction an OSError means that the database is away.
            raise _ReaderGoneError from None

    def _print(self, result: "Result") -> None:
        named = {"type": result.kind, "name": result.name} if result.kind else {}
        if self._as_json:
            failed = {"error": result.error} if result.error else {}
            output.print_json({"line": result.line, **named, "outcome": result.outcome, **failed})
            return
        words = [f"line {result.line}: {result.outcome}", *named.values()]
        print(output.clean(" ".join(words) + (f": {result.error}" if result.error else "")))

    def end(self, summary: "Summary", seconds: float, *, dry_run: bool) -> None:
        counts = {name: getattr(summary, name) for name in ("created", "updated", "unchanged", "failed")}
        if self._as_json:
            output.print_json({"summary": {**counts, "dry_run": dry_run, "seconds": round(seconds, 3)}})
        elif output.is_terminal():
            output.table(tuple(counts), [[f"{count:,}" for count in counts.values()]])
            print(
                f"{output.counted(summary.total, 'row')} in {seconds:.2f} s"
                + (", nothing was changed (dry run)" if dry_run else "")
            )
        else:
            print(", ".join(f"{count} {name}" for name, count in counts.items()) + (" (dry run)" if dry_run else ""))


class _ReaderGoneError(Exception):
    """Nobody reads what we print."""


def import_file(
    file: Annotated[str, typer.Argument(metavar="FILE", help="NDJSON; - is stdin.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Tell of all rows, not of failed ones alone.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring about what the rows of a file state; a result for each row. Safe to repeat.

    A row that fails hinders no other. Exit code 1 if a row failed.
    """

    async def work(desk: Desk) -> "Summary":
        from provisioning.core.importing import LONGEST_LINE, Result, Summary, import_rows
        from provisioning.model.refusal import Refusal
        from provisioning.protocols import protocols

        report = Reporter(as_json=as_json, verbose=verbose)
        readers = {vendor.name: vendor.read_row for vendor in protocols(desk.settings)}
        so_far = Summary()
        started = time.monotonic()
        with _opened(file) as source, output.progress("import") as bar:
            lines = Lines(source, LONGEST_LINE, "stdin" if file == STANDARD else file)
            task = bar.add_task("import", total=_size(source), done="")

            def on_result(result: Result) -> None:
                so_far.add(result)
                report(result)
                if so_far.total % DRAW_EVERY == 0:
                    rate = so_far.total / (time.monotonic() - started)
                    bar.update(task, completed=lines.read, done=f"{output.counted(so_far.total, 'row')}, {rate:,.0f}/s")

            try:
                summary = await import_rows(desk.database, lines, readers, dry_run=dry_run, on_result=on_result)
            except Refusal as refusal:
                done = "nothing" if dry_run else output.counted(so_far.total, "row")
                raise Failure(
                    f"stopped: {refusal.detail.get('error', refusal)}; {done} done, repeat the import"
                ) from refusal
            except _ReaderGoneError:
                raise BrokenPipeError from None
        report.end(summary, time.monotonic() - started, dry_run=dry_run)
        return summary

    with _immediate_interrupts():
        summary = on_registry(work, new=not dry_run)
    if summary.failed:
        raise typer.Exit(FAILED)


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == STANDARD:
        yield sys.stdin.buffer
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(Path(name).open("rb"))
        except OSError as error:
            raise Failure(f"cannot read {name}: {error.strerror}") from error
        yield file


def _size(file: BinaryIO) -> int | None:
    """None: it has no end that one could know."""
    try:
        return os.fstat(file.fileno()).st_size or None
    except OSError:
        return None


@contextlib.contextmanager
def _immediate_interrupts() -> Iterator[None]:
    """Let Ctrl-C end a read of the terminal: the loop's own handler would wait for the loop to get its turn."""

    def interrupt(_signal: int, _frame: "FrameType | None") -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGINT, interrupt)
    except ValueError:  # not the main thread: nobody interrupts us
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# --- export ----------------------------------------------------------------------------------------------------------


def export_file(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to; - is stdout.")],
    protocol: Annotated[str | None, typer.Option(help="Of this device protocol only.", show_default=False)] = None,
) -> None:
    """Write products, groups and devices as NDJSON: what `import` takes. Secrets are in it: keep it safe."""

    async def work(desk: Desk) -> int:
        from provisioning.protocols import protocols

        vendors = (desk.vendor,) if protocol else protocols(desk.settings)
        count = 0
        with target(file) as out, output.progress("export") as bar:
            task = bar.add_task("export", total=None, done="")
            async for lines in _pages(desk, vendors):
                write_to(out, file, "".join(lines))
                count += len(lines)
                bar.update(task, done=output.counted(count, "row"))
        return count

    count = on_registry(work, protocol or "enos")
    if file != STANDARD:
        output.note(f"{output.counted(count, 'row')} in {file}, with all secrets")


async def _pages(desk: Desk, vendors: "Sequence[VendorProtocol]") -> AsyncIterator[list[str]]:
    """The rows of the registry as it stands at this moment, a page at a time."""
    async with desk.database.snapshot() as tx:
        for vendor in vendors:
            async for page in _things(tx, vendor.name):
                yield [output.to_json(vendor.write_row(thing)) + "\n" for thing in page]


async def _things(tx: "Tx", protocol: str) -> "AsyncIterator[list[Product] | list[Group] | list[Device]]":
    """What is referred to comes before what refers to it."""
    from dataclasses import replace

    from provisioning.model.lifecycle import State
    from provisioning.store import claims, devices, groups, products, tenants

    last = ""
    while page := await products.page(tx, protocol, (protocol, last), PAGE):
        yield await tenants.with_accounts(tx, page)
        last = page[-1].key
    last = ""
    while of_groups := await groups.page(tx, protocol, (protocol, last), PAGE):
        yield await tenants.with_profiles(tx, of_groups)
        last = of_groups[-1].key
    last_id = 0
    while of_devices := await devices.page(tx, devices.Filter(protocol=protocol), last_id, PAGE):
        # Product and key of a device that is registered only are reserved: its row would allocate it. One that has no
        # serial number has no other name; its row states whether it is claimed.
        named = [replace(d, product="", key="") if d.serial and d.state is State.REGISTERED else d for d in of_devices]
        yield await tenants.with_modules(tx, await claims.with_claims(tx, named))
        last_id = of_devices[-1].id
