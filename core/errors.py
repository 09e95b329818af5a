"""Refusals and failures: each has a stable code for programs and a sentence for people."""

from enum import StrEnum
from typing import Any


class Code(StrEnum):
    """Stable codes of refused requests. `api.responses.problems` maps each to its HTTP status."""

    MALFORMED_REQUEST = "malformed_request"
    EMPTY_BODY = "empty_body"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    FOREIGN_ORIGIN = "foreign_origin"
    CSRF_TOKEN_INVALID = "csrf_token_invalid"  # noqa: S105 - a code
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    RECIPE_UNKNOWN = "recipe_unknown"
    RECIPE_EXISTS = "recipe_exists"
    RECIPE_WITHOUT_MODEL = "recipe_without_model"
    MODEL_NOT_READY = "model_not_ready"
    INVALID_TRANSITION = "invalid_transition"
    OWN_API_KEY = "own_api_key"
    LAST_ADMIN_KEY = "last_admin_key"
    UPLOAD_TOO_LARGE = "upload_too_large"
    IMAGE_TOO_LARGE = "image_too_large"
    TOO_MANY_IMAGES = "too_many_images"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    MULTIPLE_FRAMES = "multiple_frames"
    IMAGE_UNDECODABLE = "image_undecodable"
    INVALID_FIELD = "invalid_field"
    INVALID_CURSOR = "invalid_cursor"
    CURSOR_EPOCH = "cursor_epoch"
    CURSOR_EXPIRED = "cursor_expired"
    IMAGE_EXPIRED = "image_expired"
    INSPECTION_EXPIRED = "inspection_expired"
    INVALID_BUNDLE = "invalid_bundle"
    CALLBACK_UNREGISTERED = "callback_unregistered"
    WEBHOOK_TARGET_REFUSED = "webhook_target_refused"
    SOURCE_REFUSED = "source_refused"
    GATE_NOT_MET = "gate_not_met"
    SCHEDULE_EXISTS = "schedule_exists"
    CHALLENGER_EXISTS = "challenger_exists"
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    IDEMPOTENCY_IN_FLIGHT = "idempotency_in_flight"
    REQUEST_TIMEOUT = "request_timeout"
    RATE_LIMITED = "rate_limited"
    QUEUE_FULL = "queue_full"
    WAITING_QUEUE_FULL = "waiting_queue_full"
    BUSY = "busy"
    NOT_READY = "not_ready"
    DATABASE_UNAVAILABLE = "database_unavailable"
    STORE_FULL = "store_full"
    STORE_UNAVAILABLE = "store_unavailable"
    TIMEOUT = "timeout"
    INTERNAL_ERROR = "internal_error"


class Failure(StrEnum):
    """Stable codes of failed inspections, and of images that a re-scoring run could not score."""

    IMAGE_UNDECODABLE = "image_undecodable"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_CHECKSUM_MISMATCH = "image_checksum_mismatch"
    POISON = "poison"
    SCORE_NOT_FINITE = "score_not_finite"
    MODEL_UNAVAILABLE = "model_unavailable"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    IMAGE_MISSING = "image_missing"
    OUTSIDE_ROOT = "outside_root"
    MANIFEST_LINE_INVALID = "manifest_line_invalid"


class Refused(Exception):  # noqa: N818 - names the outcome: the request was refused
    """The request cannot be carried out. Nothing of it was stored.

    Attributes:
        code: a stable code for programs.
        detail: what is wrong and what to do about it, for people.
        retry_after: seconds after which to retry; None if unknown.
        members: further members of the problem document, for programs.
    """

    def __init__(self, code: Code, detail: str, *, retry_after: int | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retry_after = retry_after
        self.members = members
