import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.cli import output
from provisioning.model.lifecycle import State
from provisioning.model.registry import Device, Group, Product


@given(st.text())
def test_what_is_printed_has_no_control_characters_and_one_line(text: str) -> None:
    cleaned = output.clean(text)
    assert cleaned.isprintable()
    cleaned.encode()


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (None, "-"),
        ("", "-"),
        ({}, "-"),
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        ("\x1b[2J", "\\x1b[2J"),
        ({"de": "Pümpe"}, '{"de": "Pümpe"}'),
        ([], "-"),
        (["a", "\x1b"], "a, \\x1b"),
    ],
)
def test_values_as_a_person_reads_them(value: object, seen: str) -> None:
    assert output.plain(value) == seen


@pytest.mark.parametrize(
    "thing",
    [
        Product(protocol="enos", key="pk", secret="hush"),
        Group(protocol="enos", key="g", password="hush"),
        Device(protocol="enos", state=State.ALLOCATED, product="pk", key="dk", secret="hush"),
    ],
)
def test_secrets_are_shown_to_who_asks(thing: Product | Group | Device, capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (True, False):
        output.show(output.described(thing), as_json=as_json)
        assert "hush" not in capsys.readouterr().out
        output.show(output.described(thing, reveal=True), as_json=as_json)
        assert "hush" in capsys.readouterr().out


@pytest.mark.parametrize(("width", "columns"), [(60, 8), (20, 3), (1, 1)])
def test_a_table_loses_no_character_on_a_narrow_terminal(
    width: int, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    keys = [chr(ord("a") + n) * 14 for n in range(columns)]
    output.table([f"column_{n}" for n in range(columns)], [keys], wrapped=("column_1",))
    shown = capsys.readouterr().out
    assert all(len(line) <= max(width, 4 * columns) for line in shown.splitlines())
    assert [shown.partition("─")[2].count(key[0]) for key in keys] == [14] * columns


@pytest.mark.parametrize(("count", "words"), [(0, "0 rows"), (1, "1 row"), (2_000, "2,000 rows")])
def test_one_is_not_many(count: int, words: str) -> None:
    assert output.counted(count, "row") == words


def test_a_table_takes_names_literally(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("name",), [["[red]not markup[/red]"]])
    assert "[red]not markup[/red]" in capsys.readouterr().out


@given(st.text())
def test_json_is_one_line_whoever_reads_it(text: str) -> None:
    written = output.to_json({"name": text})
    assert written.splitlines() == [written]
    assert json.loads(written) == {"name": text}
