"""Every form of the table: any JSON is read or refused, and what is read is what the OpenAPI document allows."""

from functools import cache
from typing import Any

import hypothesis.strategies as st
import jsonschema_rs
import pytest
from hypothesis import example, given, settings

from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.ublox.call import AnyOperation
from provisioning.protocols.ublox.reading import Form
from provisioning.protocols.ublox.routes import ROUTES
from provisioning.protocols.ublox.schemas import Schemas
from tests.ublox_requests import INSTEAD, MINE, REQUESTS, WRONG, kind_of

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()), max_size=20)
    | st.sampled_from((0, 1, -1, 1.0, 1.5, 10**18, 10**63, "", "1", "0" * 17, "\0", "\ud800", "x" * 5_000))
    | st.sampled_from(("2020-02-30", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2020-02-01T00:00Z"))
)  # fmt: skip
NESTED = st.recursive(
    LEAVES,
    lambda any_: st.lists(any_, max_size=3) | st.dictionaries(st.text(max_size=9), any_, max_size=3),
    max_leaves=6,
)

every_operation = pytest.mark.parametrize("row", ROUTES, ids=lambda row: row.path)


@cache
def validator(path: str) -> jsonschema_rs.Validator:
    """Of the body of an operation."""
    form = next(row.reader for row in ROUTES if row.path == path)
    schemas = Schemas([form])
    return jsonschema_rs.validator_for(schemas.of_form(form) | {"components": {"schemas": schemas.named}})


def read(form: type[Form], body: object) -> Form | None:
    """None: it was refused, as it should be. Another exception fails the test."""
    try:
        return form.read(body)
    except Refusal as refusal:
        if refusal.reason not in {Reason.MALFORMED, Reason.MISSING}:
            raise
        return None


def good_values(row: AnyOperation) -> dict[str, Any]:
    """A good value of each field of the form."""
    known = {name: write(MINE) for name, write in INSTEAD.items()} | REQUESTS[row.path](MINE)
    return {name: known[name] for name in _names(row)}


def _names(row: AnyOperation) -> list[str]:
    return [str(field.alias) for field in row.reader.model_fields.values()]


@every_operation
def test_any_json_is_read_or_refused(row: AnyOperation) -> None:
    good = good_values(row)
    fields = {name: st.just(value) | st.just(value) | NESTED for name, value in good.items()}
    changed = st.fixed_dictionaries({}, optional=fields) if fields else st.just({})

    @settings(max_examples=settings().max_examples // 2)  # there are many forms
    @example({})
    @example(good)
    @given(NESTED | changed | changed | changed)
    def check(body: object) -> None:
        if read(row.reader, body) is not None:
            assert validator(row.path).is_valid(body), f"read, but not as the document has it: {body}"

    check()


@every_operation
def test_a_good_request_is_read(row: AnyOperation) -> None:
    body = REQUESTS[row.path](MINE)
    assert row.reader.read(body)
    assert validator(row.path).is_valid(body)
    assert row.reader.read(body | {"Unknown": {"of": ["no", "meaning"]}}) == row.reader.read(body)


@every_operation
def test_each_of_the_fields_that_exclude_each_other_will_do(row: AnyOperation) -> None:
    for rule in (*row.reader.ONE_OF, *row.reader.AT_MOST_ONE_OF):
        rest = {name: value for name, value in REQUESTS[row.path](MINE).items() if name not in rule}
        values = {name: INSTEAD[name](MINE) for name in rule}
        for name, value in values.items():
            assert row.reader.read(rest | {name: value}), name
            empty: dict[str, Any] = {
                other: [] if isinstance(values[other], list) else None for other in rule if other != name
            }
            assert row.reader.read(rest | {name: value} | empty), f"{name} with {empty}"
            for other in rule:
                if other != name:
                    assert read(row.reader, rest | {name: value, other: values[other]}) is None, f"{name} and {other}"
        nothing = read(row.reader, rest)
        assert (nothing is None) == (rule in row.reader.ONE_OF), rule


@every_operation
def test_what_is_required_is_missed(row: AnyOperation) -> None:
    body = REQUESTS[row.path](MINE)
    for field in row.reader.model_fields.values():
        if field.is_required():
            for lacking in (
                {name: value for name, value in body.items() if name != field.alias},
                body | {field.alias: None},
            ):
                assert read(row.reader, lacking) is None, f"{lacking}"


@every_operation
def test_a_value_of_another_kind_is_refused_and_the_field_is_named(row: AnyOperation) -> None:
    good = good_values(row)
    for name in good:
        rule = next((rule for rule in (*row.reader.ONE_OF, *row.reader.AT_MOST_ONE_OF) if name in rule), ())
        body = {other: value for other, value in REQUESTS[row.path](MINE).items() if other not in rule}
        for wrong in WRONG[kind_of(row.path, name)]:
            with pytest.raises(Refusal) as refused:
                row.reader.read(body | {name: wrong})
            assert refused.value.reason is Reason.MALFORMED, f"{name}: {wrong!r:.99}"
            assert refused.value.detail == {"field": name}, f"{name}: {wrong!r:.99}"


@pytest.mark.parametrize("row", [row for row in ROUTES if "PageNumber" in _names(row)], ids=lambda row: row.path)
def test_pages_may_have_large_numbers(row: AnyOperation) -> None:
    body = REQUESTS[row.path](MINE)
    for number in (1, 1.0, 10**9, 10**18, 10**30):
        assert row.reader.read(body | {"PageNumber": number}).number == number
    assert row.reader.read(body | {"PageNumber": None}).number == 1
