"""The OpenAPI document: valid, complete, true to the table of routes, and served."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest

from provisioning.protocols.ublox import openapi, words
from provisioning.protocols.ublox.call import Guard
from provisioning.protocols.ublox.reading import Selection
from provisioning.protocols.ublox.routes import ROUTES
from provisioning.protocols.ublox.schemas import Schemas
from tests.conftest import Serve
from tests.ublox import client
from tests.ublox_requests import MINE, REQUESTS
from tests.ublox_world import furnish

DOCUMENT = openapi.document(ROUTES)
OPERATIONS = [
    pytest.param(row, method, operation, id=f"{method} {row.path}")
    for row in ROUTES for method, operation in DOCUMENT["paths"][row.path].items()
]  # fmt: skip
KEYWORDS = {
    "$ref", "additionalProperties", "allOf", "anyOf", "const", "default", "description", "enum", "examples", "format",
    "items", "maxItems", "maxLength", "maximum", "minItems", "minLength", "minimum", "not", "oneOf", "pattern",
    "properties", "required", "type",
}  # fmt: skip


def _schemas(value: Any) -> Iterator[Any]:
    """Every schema of a document: what stands under `schema`, and those with names."""
    yield from value.get("components", {}).get("schemas", {}).values()
    stack = [value["paths"], value["components"]["responses"]]
    while stack:
        each = stack.pop()
        if isinstance(each, dict):
            if "schema" in each:
                yield each["schema"]
            stack.extend(each.values())
        elif isinstance(each, list):
            stack.extend(each)


def _keywords(schema: Any) -> Iterator[str]:
    for word, value in schema.items() if isinstance(schema, dict) else ():
        yield word
        if word in {"properties", "$defs"}:
            below = list(value.values())
        else:
            below = value if isinstance(value, list) else [value]
        if word not in {"enum", "examples", "const"}:
            for each in below:
                yield from _keywords(each)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(place := value.get("$ref"), str):
            yield place
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _references(each)


def _found(place: str) -> Any:
    value: Any = DOCUMENT
    for part in place.removeprefix("#/").split("/"):
        value = value[part]
    return value


def test_the_document_is_openapi_3_1() -> None:
    from schemathesis.specs.openapi.definitions import OPENAPI_31  # takes a while, which `make fast` does not have

    jsonschema_rs.validator_for(OPENAPI_31).validate(json.loads(json.dumps(DOCUMENT)))
    for schema in _schemas(DOCUMENT):
        jsonschema_rs.meta.validate(schema)
    for place in set(_references(DOCUMENT)):
        assert _found(place), place


def test_schemas_are_of_known_words() -> None:
    """What JSON Schema does not know it ignores: a bound by another name would be none."""
    unknown = {word for schema in _schemas(DOCUMENT) for word in _keywords(schema)} - KEYWORDS
    assert not unknown


def test_every_operation_is_in_it_once() -> None:
    assert list(DOCUMENT["paths"]) == [row.path for row in ROUTES]
    assert set(words.PLACES) == set(DOCUMENT["paths"]), "a summary is of no operation"
    names = [operation["operationId"] for path in DOCUMENT["paths"].values() for operation in path.values()]
    assert len(set(names)) == len(names) == len(ROUTES) + sum(row.get for row in ROUTES)
    summaries = [summary for operations in words.TOPICS.values() for summary in operations.values()]
    assert len(set(summaries)) == len(summaries)


def test_every_field_of_a_request_is_explained() -> None:
    fields = {field.alias for row in ROUTES for field in row.reader.model_fields.values()}
    assert fields - words.FIELDS.keys() == set(), "no words for these"
    assert words.FIELDS.keys() - fields == set(), "words for nothing"


@pytest.mark.parametrize(("row", "method", "operation"), OPERATIONS)
def test_an_operation_says_who_may_call_it_and_what_may_come(row: Any, method: str, operation: Any) -> None:
    key = "MarkedSaid" if row.marked else "Said"
    answers = operation["responses"]
    assert set(answers) == {"200", "400", "401", "404", "409", "413", "415", "429", "500"}
    for status in ("400", "404", "409"):
        assert answers[status] == {"$ref": f"#/components/responses/{key}{status}"}
    for status in ("401", "413", "415", "429", "500"):
        assert answers[status] == {"$ref": f"#/components/responses/Said{status}"}
    assert operation["security"] == ([] if row.guard is Guard.OPEN else [{"bearer": []}, {"bare": []}])
    assert ("subscription" in operation.get("description", "")) == (row.guard is Guard.SUBSCRIBED)
    if row.get:
        assert "requestBody" not in operation
        return
    assert method == "post"
    content = operation["requestBody"]["content"]
    assert list(content) == ["application/json"] + ["application/octet-stream"] * (row.csv is not None)
    properties = content["application/json"]["schema"].get("properties", {})
    assert set(properties) == {field.alias for field in row.reader.model_fields.values()}


def test_what_a_form_excludes_its_schema_excludes() -> None:
    validator = jsonschema_rs.validator_for(Schemas([Selection]).of_form(Selection))
    assert validator.is_valid({"ROTPublicUIDs": ["0002000089280087"]})
    assert validator.is_valid({"TagNames": ["downtown"], "Unknown": 1})
    assert not validator.is_valid({})
    assert not validator.is_valid({"ROTPublicUIDs": ["0002000089280087"], "TagNames": ["downtown"]})
    assert not validator.is_valid({"ROTPublicUIDs": ["0002000089280087x"]})


LATER = ("/ztp/devicecertificate/update", "/notification/webhook/delete", "/tag/remove")
"""They leave nothing for the others."""
NEW = replace(MINE, tag="new", ca="new.example.com", url="https://127.0.0.1:1/new")
ABOUT_NEW_THINGS = {
    "/tag/create",
    "/tag/delete",
    "/ztp/rootca/create",
    "/ztp/rootca/delete",
    "/notification/webhook/create",
}


async def test_every_good_reply_is_what_the_document_says(serve: Serve) -> None:
    running = await serve(ublox={"rate": 0, "webhook_private": True})
    async with client(running) as api:
        things = await furnish(running, api, MINE)
        for row in sorted(ROUTES, key=lambda row: row.path in LATER):
            body = REQUESTS[row.path](NEW if row.path in ABOUT_NEW_THINGS else things)
            reply = await api.ok(row.path, body)
            schema = DOCUMENT["paths"][row.path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
            validator = jsonschema_rs.validator_for(schema | {"components": DOCUMENT["components"]})
            for error in validator.iter_errors(reply):
                pytest.fail(f"{row.path}: {error}: {reply}")
            if row.get:
                headers = {"Authorization": api.token or ""}
                assert (await api.send(row.path, b"", method="GET", headers=headers)).body == reply


async def test_it_is_served_to_everybody_and_once_only(serve: Serve) -> None:
    async with client(await serve()) as nobody:
        first = await nobody.send("/ublox/openapi.json", b"", method="GET")
        assert (first.status, first.body) == (200, json.loads(json.dumps(DOCUMENT)))
        assert first.headers["Content-Type"].partition(";")[0] == "application/json"
        etag = first.headers["ETag"]
        for known in (etag, f'"another", {etag}', f"W/{etag}", "*"):
            async with nobody.http.get(f"{nobody.url}/ublox/openapi.json", headers={"If-None-Match": known}) as again:
                assert (again.status, await again.read(), again.headers["ETag"]) == (304, b"", etag), known
        another = await nobody.send("/ublox/openapi.json", b"", method="GET", headers={"If-None-Match": '"another"'})
        assert another.body == first.body
