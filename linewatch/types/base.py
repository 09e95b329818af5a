"""What every typed answer has in common."""

from collections.abc import Iterator
from typing import Any, Self

import msgspec


class Result(msgspec.Struct, frozen=True, dict=True):
    """An answer of a running system; immutable. Two are equal if their fields are."""

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """Check a JSON value against the type, and read it.

        Raises:
            msgspec.ValidationError: a field is missing or has another type; the message says which.
        """
        result = msgspec.convert(document, cls)
        for part, of_part in _parts(result, document):
            vars(part)["_document"] = of_part
        return result

    @property
    def document(self) -> dict[str, Any]:
        """The JSON object as the system sent it, including fields that this client does not know."""
        document: dict[str, Any] = vars(self).get("_document") or msgspec.to_builtins(self)
        return document


def _parts(value: Any, document: Any) -> Iterator[tuple[Result, Any]]:
    """Every result in a value, each with its part of the document."""
    if isinstance(value, list):
        for item, of_item in zip(value, document, strict=True):
            yield from _parts(item, of_item)
    elif isinstance(value, Result):
        yield value, document
        for name, encoded in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True):
            if encoded in document:
                yield from _parts(getattr(value, name), document[encoded])
