import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.core.importing import BATCH, LONGEST_LINE, ReadRow, Result, import_rows, read_line, words
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.spec import DeviceSpec, GroupSpec, ProductSpec
from provisioning.protocols.enos import rows
from provisioning.store import products
from provisioning.store.database import Database
from tests.devices import GROUP, PRODUCT

READERS: dict[str, ReadRow] = {"enos": rows.read_row}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FIELDS = st.sampled_from([*rows.PRODUCT, *rows.REGISTRATION_GROUP, *rows.DEVICE, "other"])
ROWS = st.builds(
    lambda kind, fields: json.dumps({"type": kind, "protocol": "enos", **fields}),
    st.sampled_from(["product", "group", "device", "other"]),
    st.dictionaries(FIELDS, JSON | st.sampled_from(["pk1", "+08:00", True])),
)


def device(key: str, **fields: object) -> str:
    row = {"type": "device", "protocol": "enos", "productKey": "pk1", "deviceKey": key} | fields
    return json.dumps({name: value for name, value in row.items() if value is not None})


async def results_of(database: Database, *lines: str, **options: Any) -> list[tuple[int, str, str]]:
    found: list[Result] = []
    await import_rows(database, lines, READERS, on_result=found.append, **options)
    return [(result.line, result.outcome, result.error) for result in found]


# --- reading ---


@given(st.text() | st.binary() | JSON.map(json.dumps) | ROWS)
def test_every_line_is_read_or_refused(line: str | bytes) -> None:
    refused: Refusal | None = None
    try:
        spec: object = read_line(line, READERS)
    except Refusal as refusal:
        refused = refusal
    if refused is None:
        assert isinstance(spec, ProductSpec | GroupSpec | DeviceSpec)
    else:
        assert refused.reason is Reason.MALFORMED
        assert words(refused)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"\xff", "the line is not UTF-8"),
        ("{", "the line is not JSON"),
        ("[" * 60_000, "the line is not JSON"),
        ("7" * 5_000, "the line is not JSON"),
        ('""', "the line is not a JSON object"),
        ("{}", "protocol must be one of enos"),
        ('{"protocol":["enos"]}', "protocol must be one of enos"),
        (b" " * (LONGEST_LINE + 1), f"the line is longer than {LONGEST_LINE} bytes"),
    ],
)
def test_refused_lines_say_why(line: str | bytes, error: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_line(line, READERS)
    assert words(refused.value) == error


def test_a_byte_order_mark_is_passed_over() -> None:
    assert isinstance(read_line(b"\xef\xbb\xbf" + json.dumps(PRODUCT).encode(), READERS), ProductSpec)


@pytest.mark.parametrize("reason", Reason)
def test_every_refusal_has_words(reason: Reason) -> None:
    assert words(Refusal(reason))


# --- writing ---


async def test_a_clash_in_a_batch_fails_alone(database: Database) -> None:
    """Two rows that claim one serial number: the constraint undoes the batch, and all but the later one get in."""
    lines = [json.dumps(PRODUCT), json.dumps(GROUP), *(device(f"a{n}") for n in range(50))]
    lines += [device("first", groupId="g1", deviceSn="SN1"), *(device(f"b{n}") for n in range(50))]
    lines += [device("second", groupId="g1", deviceSn="SN1"), *(device(f"c{n}") for n in range(50))]
    failed = [result for result in await results_of(database, *lines) if result[1] != "created"]
    assert failed == [(104, "failed", "serial is taken by another one")]
    async with database.read() as tx:
        (product,) = await products.page(tx, "enos", ("", ""), 10)
    assert product.devices == 151


async def test_results_come_in_the_order_of_the_lines(database: Database) -> None:
    lines = [device("d1"), "", json.dumps(PRODUCT), device("d1"), "x", device("d1", deviceName="N"), device("d1")]
    assert await results_of(database, *lines) == [
        (1, "failed", "there is no product pk1"),
        (3, "created", ""),
        (4, "created", ""),
        (5, "failed", "the line is not JSON"),
        (6, "updated", ""),
        (7, "unchanged", ""),
    ]


async def test_a_dry_run_rehearses_what_builds_on_each_other(database: Database) -> None:
    lines = [json.dumps(PRODUCT), json.dumps(GROUP), device("d1", groupId="g1", deviceSn="SN1"),
             device("d2", groupId="g1", deviceSn="SN1"), device("d3")]  # fmt: skip
    rehearsed = await results_of(database, *lines, dry_run=True)
    async with database.read() as tx:
        assert await products.registry_is_empty(tx)
    assert rehearsed == await results_of(database, *lines)


async def test_what_was_reported_is_in_when_the_database_goes_away(database: Database, database_url: str) -> None:
    def lines() -> Iterator[str]:
        yield json.dumps(PRODUCT)
        yield from (device(f"d{n}") for n in range(BATCH - 1))
        database.pool.terminate()
        yield device("late")

    found: list[Result] = []
    with pytest.raises(Refusal) as refused:
        await import_rows(database, lines(), READERS, on_result=found.append)
    assert refused.value.reason is Reason.UNAVAILABLE
    assert [result.outcome for result in found] == ["created"] * BATCH
