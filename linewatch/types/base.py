"""The base of all typed responses."""

from collections.abc import Iterator
from typing import Any, Self

import msgspec


class Result(msgspec.Struct, frozen=True, dict=True):
    """A response of a running system; immutable. Two are equal if their fields are equal."""

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """Convert a JSON value to this type.

        Raises:
            msgspec.ValidationError: a field is missing or has another type; the message says which.
        """
        result = msgspec.convert(document, cls)
        for part, part_document in _parts(result, document):
            vars(part)["_document"] = part_document
        return result

    @property
    def document(self) -> dict[str, Any]:
        """The JSON object as the system sent it, including fields that this client does not know."""
        document: dict[str, Any] = vars(self).get("_document") or msgspec.to_builtins(self)
        return document


def _parts(value: Any, document: Any) -> Iterator[tuple[Result, Any]]:
    """Yield every result in a value with its part of the document."""
    if isinstance(value, list):
        for item, item_document in zip(value, document, strict=True):
            yield from _parts(item, item_document)
    elif isinstance(value, Result):
        yield value, document
        for name, encoded in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True):
            if encoded in document:
                yield from _parts(getattr(value, name), document[encoded])
