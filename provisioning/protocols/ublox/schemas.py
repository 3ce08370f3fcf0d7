"""JSON Schemas (2020-12) of what operations take and give: forms, by pydantic; replies, by their annotations. Pure."""

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from pydantic.json_schema import models_json_schema

from provisioning.protocols.ublox.reading import Form

Schema = dict[str, Any]

AT: Final = "#/components/schemas/{model}"
LEAVES: Final[Mapping[Any, Schema]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    bool: {"type": "boolean"},
    NoneType: {"type": "null"},
}
KEYWORDS: Final = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
"""What pydantic writes of bounds whose type it does not know, because a validator stands before it."""
TIME: Final[Schema] = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"}
UID: Final[Schema] = {"type": "string", "pattern": "^[0-9a-f]{16}$"}
TEXTS: Final[Mapping[str, Schema]] = {
    "Timestamp": TIME,
    "LastSeen": TIME,
    "ThisUpdate": TIME,
    "NextUpdate": TIME,
    "ROTPublicUID": UID,
    "ROTPublicUIDs": UID,
    "RelatedROTPublicUIDs": UID,
}
"""What stands in the strings of replies, by the name of the field; names that end in `Date` are times too."""


class Schemas:
    """The schemas of a document, those that have names in `named`."""

    def __init__(self, forms: Iterable[type[Form]]) -> None:
        self.named: dict[str, Schema] = {}
        self._owners: dict[str, object] = {}
        known = list(dict.fromkeys(forms))
        places, parts = models_json_schema([(form, "validation") for form in known], ref_template=AT)
        found = {
            AT.format(model=name): _tidied(schema | {"description": None})
            for name, schema in parts.get("$defs", {}).items()
        }
        self._forms = {form: found.pop(places[form, "validation"]["$ref"]) for form in known}
        for place, schema in found.items():
            name = place.rpartition("/")[2]
            self.named[name], self._owners[name] = schema, schema

    def of_form(self, form: type[Form]) -> Schema:
        """The schema of one of the forms. What the form holds may have names."""
        return dict(self._forms[form])

    def of_reply(self, annotation: Any, field: str = "") -> Schema:
        """The schema of a type: TypedDicts, which get a name, and lists, mappings and unions of them.

        Raises:
            TypeError: a type that no reply may have.
        """
        origin, args = get_origin(annotation), get_args(annotation)
        if is_typeddict(annotation):
            return self._of_typed_dict(annotation)
        if origin in {None, Literal}:
            return _of_leaf(annotation, field)
        if origin in {Annotated, Required, NotRequired}:
            return self.of_reply(args[0], field)
        if origin in {Union, UnionType}:
            return {"anyOf": [self.of_reply(each, field) for each in args]}
        if issubclass(origin, Mapping):
            return {"type": "object", "additionalProperties": self.of_reply(args[1])}
        return {"type": "array", "items": self.of_reply(args[0], field)}

    def _of_typed_dict(self, annotation: Any) -> Schema:
        name = annotation.__name__
        if self._owners.setdefault(name, annotation) is not annotation:
            name = annotation.__module__.rpartition(".")[2].capitalize() + name
            self._owners[name] = annotation
        if name not in self.named:
            schema: Schema = {"type": "object"}
            self.named[name] = schema  # first of all: it may hold itself
            hints = get_type_hints(annotation, include_extras=True)
            schema["properties"] = {field: self.of_reply(each, field) for field, each in hints.items()}
            if required := [field for field in hints if field in annotation.__required_keys__]:
                schema["required"] = required
            schema["additionalProperties"] = False
        return {"$ref": AT.format(model=name)}


def _of_leaf(annotation: Any, field: str) -> Schema:
    if get_origin(annotation) is Literal:
        return {"enum": list(get_args(annotation))}
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return {"enum": [each.value for each in annotation]}
    if annotation is str and (field in TEXTS or field.endswith("Date")):
        return dict(TEXTS.get(field, TIME))
    if annotation in LEAVES:
        return dict(LEAVES[annotation])
    raise TypeError(f"{annotation!r} is no type of a reply")


def _tidied(schema: Any) -> Any:
    r"""In the words of JSON Schema: no titles made of names, no default for what is left out, and `$` ends a pattern.

    What Python calls `\Z` is `$` there (ECMA-262, 22.2.2.4); Python's `$` lets a line feed follow.
    """
    if isinstance(schema, list):
        return [_tidied(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    tidied = {KEYWORDS.get(name, name): _tidied(value) for name, value in schema.items() if value is not None}
    if isinstance(tidied.get("title"), str):
        del tidied["title"]
    if isinstance(pattern := tidied.get("pattern"), str):
        tidied["pattern"] = re.sub(r"\\Z$", "$", pattern)
    return tidied
