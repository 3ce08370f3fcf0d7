"""Bodies of the device operations. Pure. Contract: sections 4.3 and 5."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypedDict

from pydantic import ConfigDict, Field, model_validator

from provisioning.model.module import Module
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.ublox import refusals, wire
from provisioning.protocols.ublox.provisioning import Provisioning
from provisioning.protocols.ublox.reading import MOST, Form, Paged, Selection, Uids
from provisioning.store.lists import Page
from provisioning.store.whitelist import Entry, Kind

HEADER: Final = ["Id", "Type", "Action"]
UID_TYPE: Final = "ROTPublicUID"
ADD: Final = "ADD"
DELETE: Final = "DELETE"
ACTIONS: Final = {ADD: ADD, DELETE: DELETE, "DELETED": DELETE}
"""As a file has them, in upper case."""

Imei = Annotated[str, Field(pattern=r"^[0-9]{14,16}\Z", json_schema_extra={"minLength": 14, "maxLength": 16})]


class GetList(Paged):
    filter: Literal["ALL", "WHITELISTED", "BLACKLISTED"] | None = Field(None, alias="Filter")


@dataclass(frozen=True, slots=True)
class Changes:
    """Of the whitelist. No id stands in both halves."""

    added: Sequence[str] = ()
    """Uids."""
    added_imeis: Sequence[str] = ()
    dropped: Sequence[str] = ()
    dropped_imeis: Sequence[str] = ()


class ChangeWhitelist(Form):
    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["ROTPublicUIDs"]}, {"required": ["IMEIs"]}]},
    )
    uids: Uids | None = Field(None, alias="ROTPublicUIDs")
    imeis: Annotated[list[Imei], Field(max_length=MOST)] | None = Field(None, alias="IMEIs")
    action: Literal["ADD", "DELETE"] | None = Field(None, alias="Action")

    @model_validator(mode="after")
    def _must_name_something(self) -> "ChangeWhitelist":
        if not self.uids and not self.imeis:
            raise ValueError("names neither uids nor IMEIs")
        return self

    def changes(self) -> Changes:
        uids, imeis = self.uids or (), self.imeis or ()
        if self.action == DELETE:
            return Changes(dropped=uids, dropped_imeis=imeis)
        return Changes(added=uids, added_imeis=imeis)


class WhitelistFile(ChangeWhitelist):
    """The same as a file: rows may have different actions."""

    dropped: list[str] = Field(default_factory=list)

    def changes(self) -> Changes:
        return Changes(added=self.uids or (), dropped=self.dropped)


class SetProvisioning(Selection):
    wanted: Provisioning = Field(alias="Provisioning")


class DeviceList(wire.Paging):
    ROTPublicUIDs: list[str]


class WhitelistEntry(TypedDict):
    Id: str
    Type: Literal["ROTPublicUID", "IMEI"]
    CreatedDate: str
    DeviceProfileUID: str | None


class Whitelist(wire.Paging):
    DeviceWhitelist: list[WhitelistEntry]


class DesiredOf(TypedDict):
    ROTPublicUID: str
    DesiredProperties: wire.PropertySet


def read_file(data: bytes) -> ChangeWhitelist:
    """CSV (RFC 4180) in UTF-8: `Id,Type,Action` and a row for each ROTPublicUID; the last row about one holds.

    Blanks around a value, empty lines and a byte order mark are nothing.

    Raises:
        Refusal: MALFORMED, detail `field`: the column of a value that does not fit, if it is one; MISSING: no rows.
    """
    try:
        rows = list(_rows(data.decode("utf-8-sig")))
    except (UnicodeDecodeError, csv.Error):
        raise Refusal(Reason.MALFORMED) from None
    if not rows or rows[0] != HEADER:
        raise Refusal(Reason.MALFORMED)
    actions: dict[str, str] = {}
    for row in rows[1:]:
        if len(row) != len(HEADER):
            raise Refusal(Reason.MALFORMED)
        uid, action = _read_row(*row)
        actions[uid] = action
    if not actions:
        raise Refusal(Reason.MISSING)
    return WhitelistFile.model_construct(
        uids=[uid for uid, action in actions.items() if action == ADD],
        dropped=[uid for uid, action in actions.items() if action == DELETE],
    )


def _rows(text: str) -> Iterator[list[str]]:
    """Raises: csv.Error."""
    for row in csv.reader(io.StringIO(text, newline=""), strict=True):
        cells = [cell.strip() for cell in row]
        if any(cells):
            yield cells


def _read_row(uid: str, kind: str, action: str) -> tuple[str, str]:
    if kind != UID_TYPE:
        raise refusals.invalid("Type")
    if (known := ACTIONS.get(action.upper())) is None:
        raise refusals.invalid("Action")
    try:
        return wire.read_uid(uid), known
    except ValueError:
        raise refusals.invalid("Id") from None


def write_list(found: Page[str]) -> DeviceList:
    return {"ROTPublicUIDs": list(found.records), **wire.write_paging(found.number, found.total)}


def write_whitelist(found: Page[Entry]) -> Whitelist:
    return {
        "DeviceWhitelist": [
            {
                "Id": entry.value,
                "Type": "ROTPublicUID" if entry.kind is Kind.UID else "IMEI",
                "CreatedDate": wire.write_time(entry.created_at),
                "DeviceProfileUID": entry.profile,
            }
            for entry in found.records
        ],
        **wire.write_paging(found.number, found.total),
    }


def write_provisioning(found: Sequence[Module]) -> list[DesiredOf]:
    return [{"ROTPublicUID": each.uid, "DesiredProperties": wire.write_desired(each.desired)} for each in found]
