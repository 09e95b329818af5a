"""Images that were rejected, as the commands print them."""

from dataclasses import dataclass
from typing import Any, Final

IMAGE_CODES: Final = frozenset(
    {"unsupported_media_type", "multiple_frames", "image_too_large", "upload_too_large", "empty_body"}
)
"""Codes that reject one image, not the request."""


@dataclass(frozen=True)
class Refusal:
    """An image that was rejected, and why."""

    name: str
    code: str
    detail: str

    @property
    def line(self) -> str:
        """The line that describes it."""
        return f"rejected {self.name}: {self.detail} ({self.code})"

    @property
    def document(self) -> dict[str, Any]:
        """Its JSON, in the place of an inspection."""
        error = {"code": self.code, "detail": self.detail}
        return {"external_id": self.name, "status": "refused", "error": error}
