"""Requests are read by pydantic models, one for each operation: the same that the OpenAPI document is made of.

A model's fields have the wire's names as aliases. What is wrong with a body is told as the vendor tells it: `Invalid
{Field}` for a value that does not fit, `Bad Request` alone for fields that are missing or contradict each other.
"""

from datetime import UTC, date, datetime
from itertools import combinations
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.ublox import wire

MOST: Final = 1_000
"""Entries of an array in a request."""
LONGEST_TAG: Final = 255
NOTHING: Final[tuple[object, ...]] = (None, [], "")
"""A field that is so is not stated, where fields exclude each other."""


def _integer(value: object) -> object:
    """JSON does not tell 1.0 from 1."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _instant(value: object) -> datetime:
    if not isinstance(value, str):
        raise ValueError("must be a date and time in ISO 8601")  # noqa: TRY004 - pydantic wants it
    at = datetime.fromisoformat(value)
    try:
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError("must be from the year 1 to the year 9999") from None


def _day(value: object) -> date:
    if not isinstance(value, str) or (day := date.fromisoformat(value)).isoformat() != value:
        raise ValueError("must be yyyy-mm-dd")
    return day


def _text_schema(**more: object) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", **more})


Integer = Annotated[int, BeforeValidator(_integer)]
Page = Annotated[Integer, Field(ge=1)]
Uid = Annotated[
    str,
    BeforeValidator(wire.read_uid),
    WithJsonSchema({
        "anyOf": [
            {"type": "string", "pattern": "^[0-9A-Fa-f]{1,16}$"},
            {"type": "integer", "minimum": 0, "maximum": 9_999_999_999_999_999},
        ]
    }),
]  # fmt: skip
Uids = Annotated[list[Uid], Field(max_length=MOST)]
Text = Annotated[str, Field(min_length=1, max_length=4_096)]
TagName = Annotated[str, Field(min_length=1, max_length=LONGEST_TAG)]
TagNames = Annotated[list[TagName], Field(max_length=MOST)]
Instant = Annotated[
    datetime, BeforeValidator(_instant), PlainSerializer(wire.write_time), _text_schema(format="date-time")
]
Day = Annotated[date, BeforeValidator(_day), _text_schema(format="date")]
ProfileUid = Annotated[str, Field(min_length=1, max_length=64)]
CaName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,45}\Z", json_schema_extra={"maxLength": 45})]


def _describe(schema: dict[str, Any], model: type[Any]) -> None:
    """Say in the schema what `ONE_OF` and `AT_MOST_ONE_OF` say."""
    exactly = [{"oneOf": [_states(name) for name in each]} for each in model.ONE_OF]
    at_most = [
        {"not": {"allOf": [_states(one), _states(other)]}}
        for each in model.AT_MOST_ONE_OF for one, other in combinations(each, 2)
    ]  # fmt: skip
    if rules := exactly + at_most:
        schema["allOf"] = rules


def _states(name: str) -> dict[str, Any]:
    return {"required": [name], "properties": {name: {"not": {"enum": list(NOTHING)}}}}


class Form(BaseModel):
    """The body of a request. Other fields than those of the model are ignored."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="ignore", json_schema_extra=_describe, regex_engine="python-re"
    )

    ONE_OF: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Of each of these sets of fields exactly one is present and not empty."""
    AT_MOST_ONE_OF: ClassVar[tuple[tuple[str, ...], ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _choose(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            raise ValueError("must be an object")  # noqa: TRY004 - pydantic wants it
        for names in (*cls.ONE_OF, *cls.AT_MOST_ONE_OF):
            stated = sum(body.get(name) not in NOTHING for name in names)
            if stated > 1 or (stated == 0 and names in cls.ONE_OF):
                raise ValueError("states " + ("too much" if stated else "too little"))
        return body

    @classmethod
    def read(cls, body: object) -> Self:
        """Raises: Refusal MALFORMED, with detail `field` where a value does not fit; MISSING."""
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = first["loc"]
            if not where:
                raise Refusal(Reason.MISSING) from None
            if first["type"] == "missing" and len(where) == 1:
                raise Refusal(Reason.MISSING, field=where[0]) from None
            raise Refusal(Reason.MALFORMED, field=where[0]) from None


class Nothing(Form):
    """The body of an operation that asks for nothing."""


class Paged(Form):
    page: Page | None = Field(None, alias="PageNumber")

    @property
    def number(self) -> int:
        return self.page or 1


class Selection(Form):
    """Devices, by uid or by tag."""

    ONE_OF = (("ROTPublicUIDs", "TagNames"),)
    uids: Uids | None = Field(None, alias="ROTPublicUIDs")
    tags: TagNames | None = Field(None, alias="TagNames")
