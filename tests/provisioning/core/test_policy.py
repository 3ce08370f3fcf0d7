import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.core import policy
from provisioning.core.policy_syntax import LONGEST

DEVICE = {
    "model": "m1", "version": "1.10.0", "iotoVersion": "v2.4.1", "rev": 3, "load": 0.5, "test": True, "muted": False,
    "site": {"country": "DE", "floor": 2}, "tags": ["lab", 7, None], "note": None, "serial": "0100",
    "made": "2026-11-20", "tricky": 'a"b\\c',
}  # fmt: skip


def holds(text: str, fields: Mapping[str, object] = DEVICE) -> bool:
    return policy.is_true(policy.read(text), fields)


@pytest.mark.parametrize(
    "text",
    [
        "", "  \n", "true", "test", "not muted", "!muted", "!!test", "note == null", "note != 3",
        'model == "m1"', "model == 'm1'", 'model != "m2"', 'tricky == "a\\"b\\\\c"',
        "rev == 3", "rev == 3.0", "rev >= 3", "rev < 4", "load > -1", "load <= 0.5", "3 == rev", "2 < rev",
        'version > "1.9.0"', 'version >= "1.10.0"', 'version < "1.11"', 'version > "1"', 'version == "v1.10.0"',
        'version > "1.10.0-rc.1"', 'iotoVersion == "2.4.1"', 'iotoVersion > "v2.4.0"',
        'made > "2026-11-19"', 'made < "2027-01-01"', 'model > "a"',
        'model in ["m0", "m1"]', 'model not in ["m2"]', 'not model in ["m2"]', '"lab" in tags',
        "7 in tags", "null in tags",
        "rev in [1, 2, 3,]", 'version in ["1.10.0"]', "7.0 in tags", '"x" not in tags', "not (1 in [])",
        'site.country == "DE"', "site.floor > 1 and site.floor < 3",
        'model == "m1" and rev == 3 or false', "false and false or true", "true or true and false",
        "(true or true) and test", '(model) == "m1"', "model == 'm1' && (rev == 3 || rev == 4)", "true and not false",
        "model == model", "test == true", "muted == false",
    ],
)  # fmt: skip
def test_what_holds(text: str) -> None:
    assert holds(text)


@pytest.mark.parametrize(
    "text",
    [
        "false", "muted", "rev", "model", "note", "tags", "site",
        # what was not submitted
        "absent", 'absent == "x"', 'absent != "x"', "absent < 1", "absent >= 1", "absent == null", "absent != null",
        "absent == absent", 'absent in ["x"]', 'absent not in ["x"]', '"x" not in absent',
        "site.street == 1", "model.length > 0",
        "rev.x != 1", "tags.x != 1",
        # unlike things
        'rev == "3"', 'rev < "4"', "model < 3", "test == 1", "muted == 0", "test > muted", "note < 1", "tags < 1",
        "1 in [true]", "0 in [false]", "model in model", '"m" in model', '"DE" in site', "1 in rev",
        # a version is before or behind versions only
        'model > "1.0.0"', 'model < "1.0.0"', 'version > "m1"',
        # what is no whole version is the text that it is
        'serial == "100"', 'serial == "v0100"', 'version == "1.10"', 'model == "M1"',
    ],
)  # fmt: skip
def test_what_does_not_hold(text: str) -> None:
    assert not holds(text)


def test_texts_that_only_look_alike_are_not_equal() -> None:
    assert not holds('model == "v100"', {"model": "100"})
    assert holds('model != "v100"', {"model": "100"})


def test_a_name_leads_to_submitted_values_only() -> None:
    for name in ("__class__", "keys", "items", "get", "site.keys", "model.__class__", "tags.append"):
        assert not holds(f"{name} != 1")
        assert not holds(name)
    assert holds("__class__ == 1", {"__class__": 1})


def test_what_a_device_submits_cannot_make_it_fail() -> None:
    nested: object = "x"
    for _ in range(60):
        nested = {"a": nested}
    odd = {"a": nested, "b": 10**63, "c": float("1e300"), "v": "9" * 5_000, "w": "1." * 60, "u": "\U0001f600"}
    for left in odd:
        for sign in ("==", "!=", "<", "<=", ">", ">="):
            for right in (*odd, '"1.0.0"', "1.5", "null", "true"):
                holds(f"{left} {sign} {right}", odd)


def test_reading_and_evaluating_the_longest_is_quick() -> None:
    text = " or ".join(["version > '9.9.9'"] * 45)
    assert 900 < len(text) <= LONGEST
    began = time.perf_counter()
    for number in range(50):
        policy.is_true(policy.read(f"{text} or a == {number}"), {"version": "1.0.0"})
    assert time.perf_counter() - began < 2


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
)


@given(a=VALUES, b=VALUES)
def test_a_comparison_and_its_contrary(a: object, b: object) -> None:
    fields = {"a": a, "b": b}
    assert holds("a == b", fields) != holds("a != b", fields)
    assert holds("a == b", fields) == holds("b == a", fields)
    assert holds("a < b", fields) == holds("b > a", fields)
    assert not (holds("a < b", fields) and holds("a > b", fields))


@given(st.text(max_size=20))
def test_every_text_can_be_written(text: str) -> None:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    assert holds(f'a == "{quoted}"', {"a": text})


def test_a_long_list_of_a_device_takes_no_long_time() -> None:
    first, last = "1.1.0", "9.9.9"
    node = policy.read("'9.9.9' in tags")
    assert policy.is_true(node, {"tags": [first] * (policy.MOST_MEMBERS - 1) + [last]})
    assert not policy.is_true(node, {"tags": [first] * policy.MOST_MEMBERS + [last]})
    members = ", ".join(["1"] * 300)
    assert policy.is_true(policy.read(f"rev in [{members}, 2]"), {"rev": 2}), "what the policy states counts whole"
