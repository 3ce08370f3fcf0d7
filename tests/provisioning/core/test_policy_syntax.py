import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.core import policy
from provisioning.core.policy_syntax import LONGEST, All, Any, Comparison, Constant, Field, Not, read
from provisioning.model.refusal import Reason, Refusal


def test_what_is_read() -> None:
    model = Comparison(Field(("model",)), "==", Constant("m1"))
    assert read('model == "m1"') == model
    assert read("((model == 'm1'))") == model
    assert read("site.floor >= -1.5") == Comparison(Field(("site", "floor")), ">=", Constant(-1.5))
    assert read("a && b || !c") == read("a and b or not c")
    assert read("a or b and not c") == Any((Field(("a",)), All((Field(("b",)), Not(Field(("c",)))))))
    assert read("a not in [1, 'x', null, true]") == Comparison(Field(("a",)), "not in", Constant((1, "x", None, True)))
    assert read(" \t\n") == Constant(value=True)
    assert read("android and inner and notes and order and trueish") is not None
    assert read("a" * LONGEST) == Field(("a" * LONGEST,))
    assert read("(" * 16 + "a" + ")" * 16) == Field(("a",))


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("model = 'm1'", 7, "a comparison is written =="),
        ("model == 'm1", 10, "this text has no end"),
        (r"model == 'm\1'", 10, "this text has no end"),
        ("model ==", 9, "expected a field, a text in quotes, a number, true, false, null or (, not the end"),
        ("model == 'm1' rev == 3", 15, "expected and, or, or the end, not rev"),
        ("and", 1, "expected a field"),
        ("(a == 1", 8, "expected ), not the end"),
        ("a == 1)", 7, "expected and, or, or the end, not )"),
        ("1 < a < 3", 7, "comparisons do not follow each other"),
        ("'m1'", 1, "a text, number or list alone"),
        ("a and 5", 7, "a text, number or list alone"),
        ("null", 1, "a text, number or list alone"),
        ("[1] == a", 1, "a list stands behind in only"),
        ("a == [1]", 6, "a list stands behind in only"),
        ("a in 5", 6, "behind in stands a list or a field"),
        ("a in [b]", 7, "a list holds texts"),
        ("a in [[1]]", 7, "a list holds texts"),
        ("a in [1 2]", 9, "expected ,, not 2"),
        ("a in [1", 8, "expected ,, not the end"),
        ("a not 5", 3, "expected a comparison"),
        ("a ! in b", 3, "expected a comparison"),
        ("(a == 1) == b", 1, "what is true or false is not compared"),
        ("b == (a == 1)", 6, "what is true or false is not compared"),
        ("open('x')", 5, "there are no functions"),
        ("a.b.", 4, "'.' means nothing here"),
        ("version > 1.4.0", 11, "this is no number; a version is a text in quotes"),
        ("a == 1e9", 6, "this is no number"),
        ("a == 0x10", 6, "this is no number"),
        ("a == 1234567890123456", 6, "a number has 15 digits at most"),
        ("a == 0.0000000000000001", 6, "a number has 15 digits at most"),
        ("a + 1 == 2", 3, "'+' means nothing here"),
        ("a =~ '(x+)+$'", 3, "a comparison is written =="),
        ("a matches '(x+)+$'", 3, "expected and, or, or the end, not matches"),
        ("lambda: 0", 7, "':' means nothing here"),
        ("a == “x”", 6, "'“' means nothing here"),
        ("a == 'x'\0", 9, r"'\x00' means nothing here"),
        ("a\n ==\n %", 8, "'%' means nothing here"),
        ("(" * 17 + "a" + ")" * 17, 17, "more than 16 parentheses or negations within each other"),
        ("not " * 17 + "a", 65, "more than 16 parentheses or negations within each other"),
        ("!" * 900 + "a", 17, "more than 16 parentheses"),
        ("(" * 990, 17, "more than 16 parentheses"),
        ("a in " + "[" * 990, 7, "a list holds texts"),
        ("[" * 990, 2, "a list holds texts"),
        ("('m1') == a", 2, "a text, number or list alone"),
        ("a or " * 200 + "a", 1_001, "a policy has 1000 characters at most"),
        ("9" * 999, 1, "a number has 15 digits at most"),
    ],
)  # fmt: skip
def test_what_is_refused_and_where(text: str, column: int, words: str) -> None:
    with pytest.raises(Refusal) as caught:
        read(text)
    assert caught.value.reason is Reason.MALFORMED
    assert caught.value.detail["field"] == "policy"
    assert caught.value.detail["column"] == column
    rule = str(caught.value.detail["rule"])
    assert rule.startswith(f"is wrong at column {column}: ")
    assert words in rule
    assert len(rule) < 200


PIECES = [*"()[]!<>=&|,.'\"\\ \nabin019-", " and ", " or ", " not ", " in ", "true", "==", "'1.0.0'", "a.b"]


@given(st.text(max_size=1_100) | st.lists(st.sampled_from(PIECES)).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        node = read(text)
    except Refusal as refusal:
        assert refusal.reason is Reason.MALFORMED  # noqa: PT017 - either is fine
        column = refusal.detail["column"]
        assert isinstance(column, int)
        assert 1 <= column <= len(text) + 1
    else:
        assert policy.is_true(node, {"a": 1, "b": "1.0.0"}) in {True, False}
