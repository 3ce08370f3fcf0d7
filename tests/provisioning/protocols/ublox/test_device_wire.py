"""provisioning/protocols/ublox/device_wire.py"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.ublox.device_wire import Changes, ChangeWhitelist, read_file
from provisioning.protocols.ublox.reading import MOST

A, B = "0002000100003fff", "0002000100004000"
HEADER = "Id,Type,Action\n"


@pytest.mark.parametrize(
    ("text", "added", "dropped"),
    [
        (f"{HEADER}{A},ROTPublicUID,ADD\n", [A], []),
        (f"{HEADER}{A},ROTPublicUID,ADD\n{B},ROTPublicUID,DELETE\n", [A], [B]),
        (f"{HEADER}{A},ROTPublicUID,deleted\n{B},ROTPublicUID,Add", [B], [A]),
        (f"\ufeffId,Type,Action\r\n{A},ROTPublicUID,ADD\r\n\r\n", [A], []),
        (f'{HEADER}"{A}","ROTPublicUID","ADD"\n', [A], []),
        (f"Id , Type , Action\n {A} , ROTPublicUID , ADD \n,,\n", [A], []),
        (f"{HEADER}2000100003FFF,ROTPublicUID,ADD\n", [A], []),
        (f"{HEADER}{A},ROTPublicUID,ADD\n{B},ROTPublicUID,ADD\n{A},ROTPublicUID,DELETE\n", [B], [A]),
    ],
)
def test_files_are_read(text: str, added: list[str], dropped: list[str]) -> None:
    assert read_file(text.encode()).changes() == Changes(added=added, dropped=dropped)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", None), ("\n\n", None), (f"{A},ROTPublicUID,ADD\n", None), (f"Id;Type;Action\n{A};ROTPublicUID;ADD", None),
        (f"id,type,action\n{A},ROTPublicUID,ADD", None), (f"Type,Id,Action\nROTPublicUID,{A},ADD", None),
        (f"{HEADER}{A},ROTPublicUID\n", None), (f"{HEADER}{A},ROTPublicUID,ADD,\n", None),
        (f'{HEADER}"{A},ROTPublicUID,ADD\n', None), (f'{HEADER}"{A}"x,ROTPublicUID,ADD\n', None),
        (f"{HEADER}{A},ROTPublicUID,ADD\n{B},IMEI,ADD\n", "Type"), (f"{HEADER}{A},rotpublicuid,ADD\n", "Type"),
        (f"{HEADER}{A},ROTPublicUID,\n", "Action"), (f"{HEADER}{A},ROTPublicUID,REMOVE\n", "Action"),
        (f"{HEADER},ROTPublicUID,ADD\n", "Id"), (f"{HEADER}{A}0,ROTPublicUID,ADD\n", "Id"),
        (f"{HEADER}x,ROTPublicUID,ADD\n", "Id"), (f"{HEADER}\0,ROTPublicUID,ADD\n", "Id"),
        (f"{HEADER}{'1' * 200_000},ROTPublicUID,ADD\n", None),
    ],
)  # fmt: skip
def test_one_bad_row_refuses_the_file(text: str, field: str | None) -> None:
    with pytest.raises(Refusal) as caught:
        read_file(text.encode())
    assert caught.value.reason is Reason.MALFORMED
    assert caught.value.detail.get("field") == field


def test_a_file_without_rows_asks_for_nothing() -> None:
    with pytest.raises(Refusal) as caught:
        read_file(HEADER.encode())
    assert caught.value.reason is Reason.MISSING


@given(st.binary() | st.text().map(lambda text: (HEADER + text).encode("utf-8", "replace")))
def test_any_file_is_read_or_refused(data: bytes) -> None:
    try:
        changes = read_file(data).changes()
    except Refusal:
        return
    assert changes.added or changes.dropped


@pytest.mark.parametrize(
    ("body", "changes"),
    [
        ({"ROTPublicUIDs": ["2000100003FFF"]}, Changes(added=[A])),
        ({"ROTPublicUIDs": [A], "IMEIs": ["1" * 14], "Action": "ADD"}, Changes(added=[A], added_imeis=["1" * 14])),
        ({"IMEIs": ["1" * 16], "ROTPublicUIDs": []}, Changes(added_imeis=["1" * 16])),
        ({"ROTPublicUIDs": [A], "IMEIs": ["1" * 15], "Action": "DELETE"},
         Changes(dropped=[A], dropped_imeis=["1" * 15])),
    ],
)  # fmt: skip
def test_bodies_are_read(body: object, changes: Changes) -> None:
    found = ChangeWhitelist.read(body).changes()
    assert [list(getattr(found, name)) for name in Changes.__slots__] == [
        list(getattr(changes, name)) for name in Changes.__slots__
    ]


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        ({}, Reason.MISSING, None), ({"ROTPublicUIDs": [], "IMEIs": []}, Reason.MISSING, None),
        ({"Action": "ADD"}, Reason.MISSING, None), ([], Reason.MISSING, None),
        ({"ROTPublicUIDs": ["x"]}, Reason.MALFORMED, "ROTPublicUIDs"),
        ({"ROTPublicUIDs": A}, Reason.MALFORMED, "ROTPublicUIDs"),
        ({"ROTPublicUIDs": [A] * (MOST + 1)}, Reason.MALFORMED, "ROTPublicUIDs"),
        ({"IMEIs": ["1" * 13]}, Reason.MALFORMED, "IMEIs"), ({"IMEIs": ["1" * 17]}, Reason.MALFORMED, "IMEIs"),
        ({"IMEIs": ["1" * 15 + "\n"]}, Reason.MALFORMED, "IMEIs"), ({"IMEIs": ["٣" * 15]}, Reason.MALFORMED, "IMEIs"),
        ({"IMEIs": [10**14]}, Reason.MALFORMED, "IMEIs"),
        ({"IMEIs": ["1" * 15] * (MOST + 1)}, Reason.MALFORMED, "IMEIs"),
        ({"ROTPublicUIDs": [A], "Action": "add"}, Reason.MALFORMED, "Action"),
        ({"ROTPublicUIDs": [A], "Action": "DELETED"}, Reason.MALFORMED, "Action"),
    ],
)  # fmt: skip
def test_bodies_that_do_not_fit_are_refused(body: object, reason: Reason, field: str | None) -> None:
    with pytest.raises(Refusal) as caught:
        ChangeWhitelist.read(body)
    assert (caught.value.reason, caught.value.detail.get("field")) == (reason, field)
