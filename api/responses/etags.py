"""Conditional requests (RFC 9110, section 13): a client that has the current content need not get it again."""

from typing import Annotated, Any

from fastapi import Header

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "What you have with the `ETag` in `If-None-Match` is current."}
}
"""The `responses` of a route that gives an `ETag`. `api.responses.bodiless` answers."""
IfNoneMatch = Annotated[str | None, Header(description="the `ETag` of what you have; if it is current, you get 304")]


def is_current(if_none_match: str | None, etag: str) -> bool:
    """Return whether one of the entity tags of the header `If-None-Match` is this one, in the weak comparison."""
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags
