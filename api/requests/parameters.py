"""The fields of uploads, and the types of query and path parameters."""

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from fastapi import Path, Query, Request, params
from fastapi.dependencies.utils import get_flat_params
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from pydantic.json_schema import SkipJsonSchema

from api.responses.problems import invalid_fields
from core.delivery.allowed_targets import MAX_URL
from core.errors import Code, Refused
from core.intake.fields import Label as Label
from core.intake.fields import Metadata
from core.intake.fields import Moment as Moment
from core.intake.fields import parse_json as parse_json
from core.intake.fields import refuse_unstorable as refuse_unstorable

MAX_WAIT_SECONDS = 60
RECIPE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


def _not_null(value: Any) -> Any:
    if value is None:
        raise ValueError("must not be null; leave the field out to keep its value")
    return value


def _without_default(schema: dict[str, Any]) -> None:
    del schema["default"]


T = TypeVar("T")
OrLeftOut = Annotated[
    T | SkipJsonSchema[None], BeforeValidator(_not_null), Field(json_schema_extra=_without_default)
]  # a field of a change: None if it was left out; null is rejected
Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(refuse_unstorable)
]  # a name that people read
Reason = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000), AfterValidator(refuse_unstorable)
]  # why a person decided something
Url = Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL), AfterValidator(refuse_unstorable)]
Description = Annotated[str, StringConstraints(max_length=1000), AfterValidator(refuse_unstorable)]
RecipeName = Annotated[str, StringConstraints(pattern=RECIPE_NAME)]
RecipePath = Annotated[str, Path(pattern=RECIPE_NAME)]
VersionPath = Annotated[int, Path(ge=1, le=2**31 - 1)]
Wait = Annotated[
    float, Query(ge=0, le=MAX_WAIT_SECONDS, description="respond as soon as it is final, or after this many seconds")
]
Limit = Annotated[int, Query(ge=1, le=1000)]
View = Annotated[Literal["opcua"], Query(description="`opcua` responds in the vocabulary of OPC UA for Machine Vision")]


class UploadFields(BaseModel):
    """The fields of one image."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: RecipeName | None = None
    external_id: Label | None = None
    part_id: Label | None = None
    view: Annotated[Label | None, Field(description="the view, if a part has several images")] = None
    lot_id: Label | None = None
    line_id: Label | None = None
    station_id: Label | None = None
    captured_at: Moment | None = None
    priority: Literal["live", "bulk"] = "live"
    deadline_ms: Annotated[int, Field(ge=1, le=7 * 24 * 3600 * 1000)] | None = None
    batch_id: UUID | None = None
    callback_url: Url | None = None
    metadata: Metadata = Field(default_factory=dict)


def upload_fields(values: Mapping[str, Any]) -> UploadFields:
    """The fields of an upload.

    Raises:
        Refused: INVALID_FIELD for an unknown name or a wrong value.
    """
    try:
        return UploadFields.model_validate(values)
    except ValidationError as error:
        raise invalid_fields(error.errors(include_url=False, include_input=False)) from None


async def refuse_unknown_parameters(request: Request) -> None:
    """Reject query parameters that the route does not declare: a filter with a typo would have no effect.

    Routes that read their query themselves declare it in their `openapi_extra`.
    """
    if not request.query_params:
        return
    route = request.scope["route"]
    documented = (route.openapi_extra or {}).get("parameters", ())
    known = {parameter["name"] for parameter in documented if parameter["in"] == "query"}
    # The fields of a model do not say where they come from; only queries have models here.
    elsewhere = (params.Path, params.Header, params.Cookie)
    known |= {
        parameter.alias
        for parameter in get_flat_params(route.dependant)
        if not isinstance(parameter.field_info, elsewhere)
    }
    unknown = sorted(request.query_params.keys() - known)
    if unknown:
        takes = f"it takes {', '.join(sorted(known))}" if known else "it takes none"
        raise Refused(Code.INVALID_FIELD, f"{unknown[0]}: not a query parameter of this address; {takes}.")


def once_each(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Names and values as a mapping, without the empty values: clients send each field of a form, filled in or not.

    Raises:
        Refused: INVALID_FIELD for a repeated name.
    """
    values: dict[str, str] = {}
    for name, value in pairs:
        if value == "":
            continue
        if name in values:
            raise Refused(Code.INVALID_FIELD, f"{name}: given more than once.")
        values[name] = value
    return values


def items_of_files(text: str) -> dict[str, dict[str, Any]]:
    """The part `items` of a batch: a JSON object from file name to fields."""
    try:
        value = parse_json(text)
    except ValueError as error:
        raise Refused(Code.INVALID_FIELD, f"items: not valid JSON: {error}") from None
    if not isinstance(value, dict) or not all(isinstance(fields, dict) for fields in value.values()):
        raise Refused(Code.INVALID_FIELD, "items: must be a JSON object that maps file names to objects of fields.")
    return value


def encode_cursor(inspection_id: UUID | None) -> str | None:
    """The opaque cursor of the page after an inspection."""
    return None if inspection_id is None else base64.urlsafe_b64encode(inspection_id.bytes).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> UUID | None:
    """The inspection id of a cursor.

    Raises:
        Refused: INVALID_CURSOR.
    """
    if cursor is None:
        return None
    try:
        return UUID(bytes=base64.b64decode(cursor + "==", altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        raise Refused(Code.INVALID_CURSOR, "cursor: not a cursor of this listing.") from None


def decode_number_cursor(cursor: str | None) -> int | None:
    """The number of the last item before the page, of a listing whose items are numbered.

    Raises:
        Refused: INVALID_CURSOR.
    """
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= 18):
        raise Refused(Code.INVALID_CURSOR, "cursor: not a cursor of this listing.")
    return int(cursor)
