"""Rows into the registry: read, group, bring about, and a result for each.

Rows go in batches of one transaction each. A batch that clashes with somebody who writes at the same time is done again
in halves, so that the good rows are in whatever the others are.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from provisioning.core import load, load_accounts, load_claims
from provisioning.model.account import AccountSpec, ModuleSpec, ProfileSpec
from provisioning.model.claim import ClaimableSpec
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Group
from provisioning.model.spec import DeviceSpec, GroupSpec, ProductSpec, Spec
from provisioning.store.database import Database, Tx

BATCH: Final = 1_000
LONGEST_LINE: Final = 65_536
"""Bytes, or characters."""
TRIES: Final = 3

WORDS: Final[Mapping[Reason, str]] = {
    Reason.MALFORMED: "{field} {rule}",
    Reason.DUPLICATE: "{field} is taken by another one",
    Reason.UNAVAILABLE: "the database is away: {error}",
    Reason.NOT_ALLOCATED: "the device is not allocated: it has no key and no secret",
    Reason.ILLEGAL_TRANSITION: "the device is {state}: cannot {step}",
    Reason.IN_USE: "table {table} still refers to it",
}

ReadRow = Callable[[dict[str, object]], Spec]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a line: its number, what it names, and `created`, `updated`, `unchanged` or `failed`."""

    line: int
    kind: str
    name: str
    outcome: str
    error: str = ""


@dataclass(slots=True)
class Summary:
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    failed: int = 0
    first_failure: str = field(default="")

    @property
    def total(self) -> int:
        return self.created + self.updated + self.unchanged + self.failed

    def add(self, result: Result) -> None:
        setattr(self, result.outcome, getattr(self, result.outcome) + 1)
        if result.outcome == "failed" and not self.first_failure:
            self.first_failure = f"line {result.line}: {result.error}"


class _Undo(Exception):  # noqa: N818 - it ends a rehearsal
    """Rolls a rehearsal back."""


def words(refusal: Refusal) -> str:
    """A refusal in words for whoever stated something about the registry."""
    detail = refusal.detail
    match refusal.reason:
        case Reason.UNKNOWN:
            (kind, name), *around = reversed(detail.items()) if detail else [("such thing", "")]
            return f"there is no {kind} {name}" + "".join(f" in {outer} {of}" for outer, of in around)
        case reason if reason in WORDS:
            return WORDS[reason].format_map(defaultdict(lambda: "it", {"rule": "is malformed"} | detail))
    return str(refusal)


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Refusal(Reason.MALFORMED, field="the line", rule="names a field twice")
    return fields


def read_line(line: str | bytes, readers: Mapping[str, ReadRow]) -> Spec:
    """Raises: Refusal MALFORMED, with details `field` and `rule`."""
    if len(line) > LONGEST_LINE:
        raise Refusal(Reason.MALFORMED, field="the line", rule=f"is longer than {LONGEST_LINE} bytes")
    try:
        row = json.loads(
            line.decode("utf-8-sig") if isinstance(line, bytes) else line, object_pairs_hook=_without_repetition
        )
    except UnicodeDecodeError:
        raise Refusal(Reason.MALFORMED, field="the line", rule="is not UTF-8") from None
    except (ValueError, RecursionError):
        raise Refusal(Reason.MALFORMED, field="the line", rule="is not JSON") from None
    if not isinstance(row, dict):
        raise Refusal(Reason.MALFORMED, field="the line", rule="is not a JSON object")
    protocol = row.get("protocol")
    if not isinstance(protocol, str) or protocol not in readers:
        raise Refusal(Reason.MALFORMED, field="protocol", rule=f"must be one of {', '.join(readers)}")
    return readers[protocol](row)


def _described(spec: Spec) -> tuple[str, str]:
    match spec:
        case AccountSpec():
            return "account", spec.key
        case ProfileSpec():
            return "profile", spec.key
        case ProductSpec():
            return "product", spec.key
        case GroupSpec():
            return "group", spec.key
        case DeviceSpec():
            return "device", f"{spec.product}/{spec.key}" if spec.key else f"{spec.group}:{spec.serial}"


def _now() -> datetime:
    return datetime.now(UTC)


async def import_rows(
    database: Database,
    lines: Iterable[str | bytes],
    readers: Mapping[str, ReadRow],
    *,
    dry_run: bool = False,
    on_result: Callable[[Result], None] = lambda _: None,
    clock: Callable[[], datetime] = _now,
) -> Summary:
    """Bring about what the lines state, in their order. Blank lines are passed over.

    `on_result` hears of each line once it is durable; in a dry run, once it has been rehearsed. A dry run rehearses all
    lines in one transaction and rolls it back: later lines see what earlier ones did.

    Raises:
        Refusal: UNAVAILABLE, when the database goes away; what was reported is in.
    """
    summary = Summary()

    def report(result: Result) -> None:
        summary.add(result)
        on_result(result)

    runs = _runs(_numbered(lines), readers)
    if dry_run:
        with suppress(_Undo):
            async with database.begin() as tx:
                for run in runs:
                    for result in await _rehearse(tx, run, now=clock()):
                        report(result)
                raise _Undo
        return summary
    for run in runs:
        for result in await _commit(database, run, now=clock()):
            report(result)
    return summary


Item = tuple[int, Spec | Refusal]


def _numbered(lines: Iterable[str | bytes]) -> Iterator[tuple[int, str | bytes]]:
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


def _runs(lines: Iterator[tuple[int, str | bytes]], readers: Mapping[str, ReadRow]) -> Iterator[list[Item]]:
    """Batches of lines, in order."""
    while batch := list(islice(lines, BATCH)):
        items: list[Item] = []
        for number, line in batch:
            try:
                items.append((number, read_line(line, readers)))
            except Refusal as refusal:
                items.append((number, refusal))
        yield items


async def _commit(database: Database, items: Sequence[Item], *, now: datetime, tries: int = TRIES) -> list[Result]:
    try:
        async with database.begin() as tx:
            return await _apply(tx, items, now=now)
    except Refusal as refusal:
        if refusal.reason is Reason.UNAVAILABLE:  # a deadlock with another importer is among these, and is gone by now
            if tries == 1:
                raise
            return await _commit(database, items, now=now, tries=tries - 1)
        if len(items) == 1:
            return [_failed(items[0], refusal)]
    return [result for half in _halves(items) for result in await _commit(database, half, now=now)]


def _halves(items: Sequence[Item]) -> tuple[Sequence[Item], Sequence[Item]]:
    middle = len(items) // 2
    return items[:middle], items[middle:]


async def _rehearse(tx: Tx, items: Sequence[Item], *, now: datetime) -> list[Result]:
    """As `_commit`, inside a transaction that goes on: a clash undoes its own part alone."""
    from provisioning.store.database import refusal_of  # noqa: PLC0415

    try:
        async with tx.db.transaction():
            return await _apply(tx, items, now=now)
    except Exception as error:
        refusal = error if isinstance(error, Refusal) else refusal_of(error)
        if refusal is None or refusal.reason is Reason.UNAVAILABLE:
            raise
        if len(items) == 1:
            return [_failed(items[0], refusal)]
    return [result for half in _halves(items) for result in await _rehearse(tx, half, now=now)]


def _failed(item: Item, refusal: Refusal) -> Result:
    number, spec = item
    kind, name = ("", "") if isinstance(spec, Refusal) else _described(spec)
    return Result(number, kind, name, "failed", words(refusal))


async def put_devices(
    tx: Tx, specs: Sequence[DeviceSpec], *, now: datetime
) -> list[tuple[load.Outcome, Device] | Refusal]:
    """As `load.put_devices`, whatever kind of devices the specs are about. One protocol at a time."""
    if modules := [spec for spec in specs if isinstance(spec, ModuleSpec)]:
        return await load_accounts.put_modules(tx, modules, now=now)
    claimable = [spec for spec in specs if isinstance(spec, ClaimableSpec)]
    return await (load_claims.put_devices(tx, claimable) if claimable else load.put_devices(tx, specs))


async def put_group(tx: Tx, spec: GroupSpec) -> tuple[load.Outcome, Group]:
    """As `load.put_group`, also of device profiles."""
    if isinstance(spec, ProfileSpec):
        return await load_accounts.put_profile(tx, spec)
    return await load.put_group(tx, spec)


async def _put(tx: Tx, spec: ProductSpec | GroupSpec) -> load.Outcome:
    if isinstance(spec, GroupSpec):
        return (await put_group(tx, spec))[0]
    if isinstance(spec, AccountSpec):
        return (await load_accounts.put_account(tx, spec))[0]
    return (await load.put_product(tx, spec))[0]


async def _apply(tx: Tx, items: Sequence[Item], *, now: datetime) -> list[Result]:
    """Products and groups one at a time, devices that follow each other in one go."""
    results: list[Result] = []
    devices: list[tuple[int, DeviceSpec]] = []

    async def settle() -> None:
        for protocol in sorted({spec.protocol for _, spec in devices}):
            part = [(number, spec) for number, spec in devices if spec.protocol == protocol]
            outcomes = await put_devices(tx, [spec for _, spec in part], now=now)
            for (number, spec), outcome in zip(part, outcomes, strict=True):
                kind, name = _described(spec)
                if isinstance(outcome, Refusal):
                    results.append(Result(number, kind, name, "failed", words(outcome)))
                else:
                    results.append(Result(number, kind, name, str(outcome[0])))
        devices.clear()

    for number, spec in items:
        if isinstance(spec, DeviceSpec):
            devices.append((number, spec))
            continue
        await settle()
        if isinstance(spec, Refusal):
            results.append(Result(number, "", "", "failed", words(spec)))
            continue
        kind, name = _described(spec)
        try:
            results.append(Result(number, kind, name, str(await _put(tx, spec))))
        except Refusal as refusal:
            results.append(Result(number, kind, name, "failed", words(refusal)))
    await settle()
    return sorted(results, key=lambda result: result.line)
