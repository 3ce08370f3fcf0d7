"""Fields of import rows, as every vendor has them: how each must look, and the words that say so."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from provisioning.model.refusal import Reason, Refusal

Check = tuple[Callable[[Any], bool], str]
"""Does a value fit; what it must be, in words."""


def pattern(form: re.Pattern[str], words: str) -> Check:
    """A text that matches as a whole."""
    return (lambda value: isinstance(value, str) and form.fullmatch(value) is not None), words


FLAG: Final[Check] = (lambda value: isinstance(value, bool), "true or false")


def refuse(name: str, rule: str) -> Refusal:
    """What is wrong with a field, for a person."""
    return Refusal(Reason.MALFORMED, field=name, rule=rule)


def checked(row: Mapping[str, object], table: Mapping[str, Check], *required: str) -> dict[str, Any]:
    """The fields that a row states, without what kind of row it is.

    Raises:
        Refusal: MALFORMED, with details `field` and `rule`: one is not in the table, does not fit or is missing.
    """
    fields: dict[str, Any] = {}
    for name, value in row.items():
        if name in {"type", "protocol"} or value is None:
            continue
        if name not in table:
            raise refuse(name, f"is not a field of this row; it has {', '.join(table)}")
        fits, words = table[name]
        if not fits(value):
            raise refuse(name, f"must be {words}")
        fields[name] = value
    for name in required:
        if name not in fields:
            raise refuse(name, "is missing")
    return fields


def renamed(row: Mapping[str, object], table: Mapping[str, tuple[str, Check]]) -> dict[str, Any]:
    """As `checked`, under the names that the table gives the fields."""
    found = checked(row, {name: check for name, (_, check) in table.items()})
    return {table[name][0]: value for name, value in found.items()}
