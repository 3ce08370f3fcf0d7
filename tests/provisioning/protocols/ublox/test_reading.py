"""The types that forms are made of, and how what is wrong with a body is told."""

from datetime import UTC, date, datetime
from typing import Any

import pytest
from pydantic import Field

from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.ublox.reading import (
    MOST,
    CaName,
    Day,
    Form,
    Instant,
    Integer,
    Nothing,
    Paged,
    Selection,
    TagName,
    Text,
    Uid,
)


class Everything(Form):
    AT_MOST_ONE_OF = (("Day", "Instant"),)
    uid: Uid | None = Field(None, alias="ROTPublicUID")
    name: TagName | None = Field(None, alias="TagName")
    ca: CaName | None = Field(None, alias="CAName")
    text: Text | None = Field(None, alias="Text")
    number: Integer | None = Field(None, alias="Number")
    day: Day | None = Field(None, alias="Day")
    instant: Instant | None = Field(None, alias="Instant")


class Required(Form):
    text: Text = Field(alias="Text")
    within: Paged = Field(alias="Within")


def why(form: type[Form], body: Any) -> tuple[Reason, Any]:
    with pytest.raises(Refusal) as refused:
        form.read(body)
    return refused.value.reason, refused.value.detail.get("field")


@pytest.mark.parametrize(
    ("body", "name", "value"),
    [
        ({"ROTPublicUID": 2000089280087}, "uid", "0002000089280087"),
        ({"TagName": "Å" * 255}, "name", "Å" * 255),
        ({"CAName": "a_B-c.9" + "x" * 38}, "ca", "a_B-c.9" + "x" * 38),
        ({"Number": 3.0}, "number", 3),
        ({"Day": "2020-02-29"}, "day", date(2020, 2, 29)),
        ({"Instant": "2020-02-29T12:00:00Z"}, "instant", datetime(2020, 2, 29, 12, tzinfo=UTC)),
        ({"Instant": "2020-02-29T20:00:00+08:00"}, "instant", datetime(2020, 2, 29, 12, tzinfo=UTC)),
        ({"Instant": "2020-02-29T12:00:00.5"}, "instant", datetime(2020, 2, 29, 12, 0, 0, 500_000, UTC)),
        ({"Instant": "2020-02-29"}, "instant", datetime(2020, 2, 29, tzinfo=UTC)),
        ({"Text": None, "More": {"unknown": 1}}, "text", None),
    ],
)
def test_values_are_read(body: dict[str, Any], name: str, value: object) -> None:
    assert getattr(Everything.read(body), name) == value


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("ROTPublicUID", ("", "x", "0" * 17, -1, 1.5, True, [], {})),
        ("TagName", ("", "x" * 256, 7, ["a"])),
        ("CAName", ("", "x" * 46, "a b", "ü", "a\n", 7)),
        ("Text", ("", "x" * 4_097, 7, True)),
        ("Number", ("3", 3.5, True, [], "")),
        ("Day", ("2020-02-30", "20200229", "2020-02-29T00:00", "", 7)),
        ("Instant", ("2020-02-30", "now", "", 1_582_977_600, "0001-01-01T00:00:00+23:59")),
    ],
)
def test_a_value_that_does_not_fit_is_told_by_its_field(field: str, wrong: tuple[object, ...]) -> None:
    for value in wrong:
        assert why(Everything, {field: value}) == (Reason.MALFORMED, field), repr(value)


def test_what_is_missing_or_contradicts_itself_is_told_without_more() -> None:
    assert why(Required, {}) == (Reason.MISSING, "Text")
    assert why(Required, {"Text": "t", "Within": {"PageNumber": 0}}) == (Reason.MALFORMED, "Within")
    assert why(Required, {"Text": "t", "Within": 7}) == (Reason.MALFORMED, "Within")
    assert why(Everything, {"Day": "2020-02-29", "Instant": "2020-02-29"}) == (Reason.MISSING, None)
    bodies: list[object] = [[], "text", 7, None, True]
    for no_object in bodies:
        assert why(Nothing, no_object) == (Reason.MISSING, None)


def test_exactly_one_of_two_selectors() -> None:
    uids, tags = {"ROTPublicUIDs": ["1"]}, {"TagNames": ["a"]}
    assert Selection.read(uids).uids == ["0" * 15 + "1"]
    assert Selection.read(tags | {"ROTPublicUIDs": []}).tags == ["a"]
    assert Selection.read(tags | {"ROTPublicUIDs": None}).uids is None
    contradictions: list[object] = [
        {}, uids | tags, {"ROTPublicUIDs": []}, {"ROTPublicUIDs": None, "TagNames": []},
    ]  # fmt: skip
    for wrong in contradictions:
        assert why(Selection, wrong) == (Reason.MISSING, None), wrong
    assert why(Selection, {"ROTPublicUIDs": "1"}) == (Reason.MALFORMED, "ROTPublicUIDs")
    assert why(Selection, {"ROTPublicUIDs": ["1", "x"]}) == (Reason.MALFORMED, "ROTPublicUIDs")
    assert len(Selection.read({"ROTPublicUIDs": ["1"] * MOST}).uids or ()) == MOST == 1_000
    assert why(Selection, {"ROTPublicUIDs": ["1"] * (MOST + 1)}) == (Reason.MALFORMED, "ROTPublicUIDs")


def test_pages_are_counted_from_one() -> None:
    assert [Paged.read(body).number for body in ({}, {"PageNumber": None}, {"PageNumber": 10**18})] == [1, 1, 10**18]
    for wrong in (0, -1, "1", 1.5, True):
        assert why(Paged, {"PageNumber": wrong}) == (Reason.MALFORMED, "PageNumber")
