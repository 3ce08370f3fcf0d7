"""The table of routes against the contract, section 4, which stands here once more."""

import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple, get_args, get_type_hints, is_typeddict

import pytest

from provisioning.protocols.ublox.call import AnyOperation, Call, Guard
from provisioning.protocols.ublox.reading import Form
from provisioning.protocols.ublox.routes import ROUTES

OPEN, TOKEN, SUBSCRIBED = Guard


class Promise(NamedTuple):
    """What the contract says of an operation."""

    path: str
    guard: Guard = TOKEN
    marked: bool = False
    get: bool = False
    csv: bool = False


CONTRACT = {
    "Authentication": (
        Promise("/authenticate", OPEN),
        Promise("/refreshauthtoken", OPEN),
    ),
    "Device profile": (
        Promise("/deviceprofile/get"),
        Promise("/deviceprofile/bootstrapprovisioning/set"),
        Promise("/deviceprofile/bootstrapprovisioning/get"),
        Promise("/deviceprofile/bootstrapprovisioning/delete"),
    ),
    "Device": (
        Promise("/device/list/get"),
        Promise("/device/whitelist/add", marked=True, csv=True),
        Promise("/device/whitelist/get"),
        Promise("/device/provisioning/set", marked=True),
        Promise("/device/provisioning/get"),
        Promise("/device/provisioning/delete"),
    ),
    "End-to-end services": (
        Promise("/e2e/key/rotate", marked=True),
        Promise("/e2e/uplink/symmetrickey/get"),
        Promise("/e2e/uplink/protectionparameters/get"),
        Promise("/e2e/uplink/integrityparameters/get"),
        Promise("/e2e/downlink/protectionparameters/get"),
        Promise("/e2e/downlink/integrityparameters/get"),
    ),
    "Information": (
        Promise("/device/info/get"),
        Promise("/notification/get"),
        Promise("/device/clone/get"),
        Promise("/device/suspicious/get"),
        Promise("/device/activity/get"),
        Promise("/device/usage/get"),
        Promise("/device/rotpublicuid/get"),
        Promise("/apiversion", get=True),
    ),
    "Root CA": (
        Promise("/ztp/rootca/create"),
        Promise("/ztp/rootca/update", SUBSCRIBED),
        Promise("/ztp/rootca/get"),
        Promise("/ztp/rootca/crl/get", SUBSCRIBED),
        Promise("/ztp/rootca/device/get"),
        Promise("/ztp/rootca/popcertificate/generate"),
        Promise("/ztp/rootca/delete"),
    ),
    "Device certificates": (
        Promise("/ztp/devicecertificate/renew", SUBSCRIBED),
        Promise("/ztp/devicecertificate/update", SUBSCRIBED),
        Promise("/ztp/devicecertificate/delete", SUBSCRIBED),
        Promise("/ztp/devicecertificate/revoke", SUBSCRIBED),
        Promise("/ztp/devicecertificate/rootca/transfer", SUBSCRIBED),
    ),
    "Webhooks": (
        Promise("/notification/webhook/create"),
        Promise("/notification/webhook/update"),
        Promise("/notification/webhook/delete"),
        Promise("/notification/webhook/get", get=True),
    ),
    "Tags": (
        Promise("/tag/create"),
        Promise("/tag/delete"),
        Promise("/tag/get"),
        Promise("/tag/assign"),
        Promise("/tag/remove"),
    ),
}  # fmt: skip
"""`/ztp/rootca/create` is for everybody: its one field that needs the subscription may be left out."""

every_operation = pytest.mark.parametrize("row", ROUTES, ids=lambda row: row.path)


def test_the_table_is_the_contracts() -> None:
    assert [len(promises) for promises in CONTRACT.values()] == [2, 4, 6, 6, 8, 7, 5, 4, 5]
    table = [Promise(row.path, row.guard, row.marked, row.get, row.csv is not None) for row in ROUTES]
    assert table == [promise for promises in CONTRACT.values() for promise in promises]


@every_operation
def test_the_parts_of_a_row_fit_each_other(row: AnyOperation) -> None:
    """What the verb takes is what the reader makes, and the writer says which reply it writes."""
    assert issubclass(row.reader, Form)
    assert inspect.iscoroutinefunction(row.verb), "a verb is asynchronous"
    verb = get_type_hints(row.verb)
    call, form = list(inspect.signature(row.verb).parameters)
    assert verb[call] is Call
    taken = get_args(verb[form]) or (verb[form],)
    assert issubclass(row.reader, taken), f"the verb takes {taken}, the reader makes {row.reader}"
    if row.csv is not None:
        assert issubclass(get_type_hints(row.csv)["return"], taken)
    assert _leaves(get_type_hints(row.writer, include_extras=True)["return"]) <= {str, int, bool, type(None)}


@every_operation
def test_the_fields_of_a_form_have_the_wires_names(row: AnyOperation) -> None:
    for name, field in row.reader.model_fields.items():
        assert field.alias is not None, f"{name} has no alias"
        assert field.alias[0].isupper(), f"{field.alias} is not in the vendor's style"
    known = {field.alias for field in row.reader.model_fields.values()}
    assert {name for rule in (*row.reader.ONE_OF, *row.reader.AT_MOST_ONE_OF) for name in rule} <= known


def _leaves(annotation: Any) -> set[Any]:
    """What a reply is made of in the end. `object` and `Any` would say nothing; they are leaves too."""
    return set(_walk(annotation))


def _walk(annotation: Any) -> Iterator[Any]:
    if is_typeddict(annotation):
        for each in get_type_hints(annotation).values():
            yield from _walk(each)
    elif args := get_args(annotation):
        for each in args:
            yield from _walk(each) if not isinstance(each, str | int) else (type(each),)
    else:
        yield annotation
