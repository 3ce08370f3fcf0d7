"""What devices are provisioned with: requests' `Provisioning` objects, desired properties, current ones. Pure.

Contract: sections 3 and 5. Properties are values by name, each with its date (`model.module.Properties`). Desired ones
say what an application wants; at the next heartbeat they become current, and what they do not name stays as it is.

read           a request's `Provisioning`, in either of its two forms -> what it wants
merge          properties, with what is wanted: only what changes gets a new date
stated         properties, without their dates: what `merge` takes
synchronize    current properties, once the device has been told the desired ones
switched_on    which authorizations that has enabled
interval       how often the device must come
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import PlainValidator, WithJsonSchema

from provisioning.model.module import Properties
from provisioning.protocols.ublox import wire

SHORTEST_HEARTBEAT: Final = 3_600
"""Seconds."""
LONGEST_HEARTBEAT: Final = 2_592_000
CA_FORM: Final = re.compile(r"[A-Za-z0-9_.-]{1,45}")
SETTABLE: Final = tuple(name for name in wire.AUTHORIZATIONS if name != wire.EVALUATION)
STATES: Final = (wire.ENABLED, wire.DISABLED)

Wanted = Mapping[str, str | int]
"""Values by the names of properties."""


def read(value: object) -> Wanted:
    """What a `Provisioning` object wants: at least one property.

    Its forms, which may be mixed: lists of names with states or values, and names as keys. Other keys are ignored, as
    unknown fields are everywhere; other names within the lists are not.

    Raises:
        ValueError: it is no such object; it sets a property twice, or `Evaluation`; a state, interval or name of a CA
            does not fit.
    """
    if not isinstance(value, dict):
        raise ValueError("must be an object")  # noqa: TRY004 - pydantic wants it
    wanted: dict[str, str | int] = {}
    for name, stated in _stated(value):
        if name in wanted:
            raise ValueError(f"sets {name} twice")
        wanted[name] = _read_value(name, stated)
    if not wanted:
        raise ValueError("sets nothing")
    return wanted


def _stated(value: dict[str, object]) -> Iterator[tuple[str, object]]:
    """Names and values as they stand in either form. Raises: ValueError."""
    for entry in _objects(value, "Authorizations"):
        name = entry.get("Name")
        if not isinstance(name, str) or name not in wire.AUTHORIZATIONS:
            raise ValueError("there is no such authorization")
        yield name, entry.get("State")
    for entry in _objects(value, "NetworkParameters"):
        if entry.get("Name") != wire.HEARTBEAT:
            raise ValueError("there is no such network parameter")
        yield wire.HEARTBEAT, entry.get("Value")
    zerotouch = value.get("Zerotouch")
    if zerotouch is not None:
        if not isinstance(zerotouch, dict):
            raise ValueError("Zerotouch must be an object")
        yield wire.CA_NAME, zerotouch.get("CAName")
    for name in (*wire.AUTHORIZATIONS, wire.HEARTBEAT, wire.CA_NAME):
        if name in value:
            yield name, value[name]


def _objects(value: dict[str, object], field: str) -> list[dict[str, object]]:
    found = value.get(field)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ValueError(f"{field} must be a list of objects")
    return found


def _read_value(name: str, value: object) -> str | int:
    if name == wire.HEARTBEAT:
        return _read_interval(value)
    if name == wire.CA_NAME:
        if not isinstance(value, str) or not CA_FORM.fullmatch(value):
            raise ValueError("there is no such name of a CA")
        return value
    if name not in SETTABLE:
        raise ValueError(f"{name} is read only")
    if not isinstance(value, str) or value not in STATES:
        raise ValueError(f"{name} must be ENABLED or DISABLED")
    return value


def _read_interval(value: object) -> int:
    if isinstance(value, float) and value.is_integer():  # JSON does not tell 3600.0 from 3600
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not SHORTEST_HEARTBEAT <= value <= LONGEST_HEARTBEAT:
        raise ValueError(f"must be {SHORTEST_HEARTBEAT} to {LONGEST_HEARTBEAT} seconds")
    return value


_STATE: Final[dict[str, Any]] = {"type": "string", "enum": list(STATES)}
_INTERVAL: Final[dict[str, Any]] = {
    "type": "integer", "minimum": SHORTEST_HEARTBEAT, "maximum": LONGEST_HEARTBEAT,
}  # fmt: skip
_CA_NAME: Final[dict[str, Any]] = {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,45}$"}


def _list_of(most: int, **properties: dict[str, Any]) -> dict[str, Any]:
    entry = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": ["array", "null"], "items": entry, "maxItems": most}


SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "description": "Lists of names with states or values, or names as keys. Each property once, and at least one.",
    "properties": {
        "Authorizations": _list_of(len(SETTABLE), Name={"type": "string", "enum": list(SETTABLE)}, State=_STATE),
        "NetworkParameters": _list_of(1, Name={"type": "string", "enum": [wire.HEARTBEAT]}, Value=_INTERVAL),
        "Zerotouch": {"type": ["object", "null"], "properties": {"CAName": _CA_NAME}, "required": ["CAName"]},
        **dict.fromkeys(SETTABLE, _STATE),
        wire.HEARTBEAT: _INTERVAL,
        wire.CA_NAME: _CA_NAME,
        wire.EVALUATION: False,
    },
    "anyOf": [
        {"required": [name]}
        for name in (
            "Authorizations", "NetworkParameters", "Zerotouch", *SETTABLE, wire.HEARTBEAT, wire.CA_NAME
        )
    ],
}  # fmt: skip
"""Of the objects that `read` reads."""

Provisioning = Annotated[Wanted, PlainValidator(read), WithJsonSchema(SCHEMA)]
"""The field of a form."""


def merge(properties: Properties, wanted: Wanted, now: datetime) -> Properties:
    """`properties` with what is wanted; what has its value already keeps its date."""
    news = {
        name: (value, now)
        for name, value in wanted.items() if name not in properties or properties[name][0] != value
    }  # fmt: skip
    return {**properties, **news}


def stated(properties: Properties) -> Wanted:
    """Their values alone."""
    return {name: value for name, (value, _) in properties.items()}


def synchronize(current: Properties, desired: Properties, now: datetime) -> Properties:
    """Current properties, once the device has been told the desired ones.

    What is not desired stays as the device has it, but for the interval of its heartbeats: that one goes back to the
    default.
    """
    wanted = dict(stated(desired))
    if wire.HEARTBEAT in current:
        wanted.setdefault(wire.HEARTBEAT, wire.DEFAULT_HEARTBEAT)
    return merge(current, wanted, now)


def switched_on(before: Properties, after: Properties) -> tuple[str, ...]:
    """Authorizations that are enabled after and were not before."""
    return tuple(name for name in wire.AUTHORIZATIONS if is_enabled(after, name) and not is_enabled(before, name))


def is_enabled(properties: Properties, name: str) -> bool:
    return name in properties and properties[name][0] == wire.ENABLED


def interval(properties: Properties) -> int:
    """Seconds from one heartbeat to the next."""
    return int(properties[wire.HEARTBEAT][0]) if wire.HEARTBEAT in properties else wire.DEFAULT_HEARTBEAT
