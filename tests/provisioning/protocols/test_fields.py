"""provisioning/protocols/fields.py"""

import re

import pytest

from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.fields import FLAG, checked, pattern, renamed

TABLE = {"id": pattern(re.compile("[a-z]{1,3}"), "1 to 3 letters"), "on": FLAG}


def test_what_is_stated_comes_back() -> None:
    assert checked({"type": "x", "protocol": "y", "id": "abc", "on": None}, TABLE, "id") == {"id": "abc"}
    assert renamed({"id": "a", "on": True}, {"id": ("key", TABLE["id"]), "on": ("is_on", FLAG)}) == {
        "key": "a", "is_on": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "field", "rule"),
    [
        ({"id": "abcd"}, "id", "must be 1 to 3 letters"),
        ({"id": 1}, "id", "must be 1 to 3 letters"),
        ({"id": "a", "on": 1}, "on", "must be true or false"),
        ({"id": "a", "of": 1}, "of", "is not a field of this row; it has id, on"),
        ({}, "id", "is missing"),
        ({"id": None}, "id", "is missing"),
    ],
)
def test_the_words_are_for_people(row: dict[str, object], field: str, rule: str) -> None:
    with pytest.raises(Refusal) as caught:
        checked(row, TABLE, "id")
    assert caught.value.reason is Reason.MALFORMED
    assert caught.value.detail == {"field": field, "rule": rule}
