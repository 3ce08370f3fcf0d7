"""Who gets an update: an expression over what a device submits, read once when it is published.

A comparison with a field that was not submitted is false, whatever the operator. A field that stands alone is true when
its value is `true`. Texts that are versions are compared as versions: `<` and its like where both are (`"1.4"` too),
`==` and `!=` where both have three numbers; other texts by their characters. A text and a number are never equal, and
neither is before the other.

Evaluating takes time in proportion to the expression, whose form is in `policy_syntax`, whatever a device submits.
"""

import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from provisioning.core import version
from provisioning.core.policy_syntax import All, Any, Comparison, Constant, Field, Node, Not, read

__all__ = ["is_true", "read"]

ORDERS: Final[Mapping[str, Callable[..., bool]]] = MappingProxyType(
    {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
)

MOST_MEMBERS: Final = 256
"""Of a list that a device submits, so many are looked at."""


class _Absent:
    """The value of a field that was not submitted."""


ABSENT: Final = _Absent()


def is_true(node: Node, fields: Mapping[str, object]) -> bool:
    """Does the policy hold for a device that submitted `fields`? Never raises."""
    match node:
        case Not(part):
            return not is_true(part, fields)
        case All(parts):
            return all(is_true(part, fields) for part in parts)
        case Any(parts):
            return any(is_true(part, fields) for part in parts)
        case Comparison(left, sign, right):
            return _holds(_value(left, fields), sign, _value(right, fields))
    return _value(node, fields) is True


def _value(node: Node, fields: Mapping[str, object]) -> object:
    if isinstance(node, Constant):
        return node.value
    assert isinstance(node, Field)
    value: object = fields
    for name in node.path:
        if not isinstance(value, Mapping) or name not in value:
            return ABSENT
        value = value[name]
    return value


def _holds(left: object, sign: str, right: object) -> bool:
    if left is ABSENT or right is ABSENT:
        return False
    if sign in {"in", "not in"}:
        if not isinstance(right, tuple | list):
            return False
        members = right if isinstance(right, tuple) else right[:MOST_MEMBERS]  # a tuple is of the policy
        return any(_equal(left, each) for each in members) == (sign == "in")
    if sign in {"==", "!="}:
        return _equal(left, right) == (sign == "==")
    return _ordered(left, ORDERS[sign], right)


def _equal(left: object, right: object) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        if left == right:
            return True
        one, other = version.read_whole(left), version.read_whole(right)
        return one is not None and other is not None and one.compare(other) == 0
    if _is_number(left) and _is_number(right):
        return left == right
    return type(left) is type(right) and left == right


def _ordered(left: object, order: Callable[..., bool], right: object) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        one, other = version.read(left), version.read(right)
        if one is not None and other is not None:
            return order(one.compare(other), 0)
        return (one is None) == (other is None) and order(left, right)
    return _is_number(left) and _is_number(right) and order(left, right)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
