"""The OpenAPI 3.1 document of the table of routes, made of its forms and of what its writers return. Pure."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final, get_type_hints

from provisioning.protocols.ublox import refusals, wire, words
from provisioning.protocols.ublox.call import AnyOperation, Guard
from provisioning.protocols.ublox.schemas import AT, Schema, Schemas

JSON: Final = "application/json"
CSV: Final = "application/octet-stream"

SAID: Final[Mapping[str, type]] = MappingProxyType({"message": wire.Said, "Message": wire.MarkedSaid})
"""Key of a message -> its reply."""
SECURITY: Final[Sequence[Mapping[str, Sequence[str]]]] = ({"bearer": []}, {"bare": []})


def document(routes: Sequence[AnyOperation]) -> Schema:
    """The document, as JSON has it. Source: OpenAPI Specification 3.1.0."""
    schemas = Schemas(row.reader for row in routes if not row.get)
    for said in SAID.values():
        schemas.of_reply(said)
    paths = {row.path: _path(row, schemas) for row in routes}
    tags = dict.fromkeys(words.PLACES[row.path][0] for row in routes)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Security Services", "version": wire.API_VERSION, "description": words.ABOUT},
        "servers": [{"url": "/v1"}, {"url": "/", "description": "The same operations"}],
        "tags": [{"name": name} for name in tags],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.named.items())),
            "responses": _responses(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "bare": {
                    "type": "apiKey", "in": "header", "name": "Authorization", "description": "The AuthToken alone.",
                },
            },
        },
    }  # fmt: skip


def _path(row: AnyOperation, schemas: Schemas) -> Schema:
    topic, summary = words.PLACES[row.path]
    reply = schemas.of_reply(get_type_hints(row.writer, include_extras=True)["return"])
    operation: Schema = {"tags": [topic], "summary": summary, "operationId": row.name}
    if about := words.GUARDS.get(row.guard):
        operation["description"] = about
    operation["security"] = [] if row.guard is Guard.OPEN else list(SECURITY)
    operation["responses"] = {"200": {"description": "Done", "content": {JSON: {"schema": reply}}}} | {
        str(status): {"$ref": f"#/components/responses/{_failure(status, marked=row.marked)}"}
        for status in words.FAILURES
    }
    if row.get:
        return {"get": operation | {"operationId": f"{row.name}.plain"}, "post": operation}
    content: Schema = {JSON: {"schema": _explained(schemas.of_form(row.reader))}}
    if row.csv is not None:
        content[CSV] = {"schema": {"type": "string", "examples": [words.CSV]}}
    return {"post": operation | {"requestBody": {"required": True, "content": content}}}


def _failure(status: int, *, marked: bool) -> str:
    """The name of a response: the name of its schema and the status."""
    key = next(iter(refusals.write_body(status, "", marked=marked)))
    return f"{SAID[key].__name__}{status}"


def _responses() -> Schema:
    return {
        _failure(status, marked=marked): {
            "description": about,
            "content": {JSON: {"schema": {"$ref": AT.format(model=SAID["Message" if marked else "message"].__name__)}}},
        }
        for status, about in words.FAILURES.items()
        for marked in (False, True)
        if not marked or status not in refusals.BEFORE_THE_OPERATION
    }


def _explained(form: Schema) -> Schema:
    fields = {}
    for name, field in form.get("properties", {}).items():
        about = {"description": words.FIELDS[name]} if name in words.FIELDS else {}
        example = {"examples": [words.EXAMPLES[name]]} if name in words.EXAMPLES else {}
        fields[name] = about | field | example
    return form | {"properties": fields}


@dataclass(frozen=True, slots=True)
class Published:
    """A document as it is served."""

    body: bytes
    etag: str


@cache
def published(routes: tuple[AnyOperation, ...]) -> Published:
    """Made once, for it takes some milliseconds."""
    body = json.dumps(document(routes), ensure_ascii=False, separators=(",", ":")).encode()
    return Published(body, hashlib.sha256(body).hexdigest()[:32])
