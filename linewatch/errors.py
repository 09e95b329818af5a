"""The errors of the client; every message says what to do."""

from typing import Any


class LinewatchError(Exception):
    """A request was not carried out; the message is one line."""


class Refused(LinewatchError):  # noqa: N818 - named after the event: the request was refused
    """The system rejected the request.

    Attributes:
        code: stable, such as `recipe_unknown`; `http_<status>` if the response did not come from Linewatch.
        status: the HTTP status.
        detail: what is wrong and what to do.
    """

    def __init__(self, code: str, status: int, detail: str) -> None:
        super().__init__(f"{detail} ({code})")
        self.code = code
        self.status = status
        self.detail = detail


class GateNotMet(Refused):
    """A run does not meet the gate; nothing was activated.

    Attributes:
        gate: every rule with `rule`, `limit`, `measured`, `count`, `of`, `bound`, `met` and `detail`.
    """

    def __init__(self, code: str, status: int, detail: str, gate: list[dict[str, Any]]) -> None:
        super().__init__(code, status, detail)
        self.gate = gate


class CursorLost(Refused):
    """The cursor no longer exists in the feed; results may have been missed.

    `code` is `cursor_expired` if its results are past retention, `cursor_epoch` if the database was restored.

    Attributes:
        resume_after: where to continue, for `results(after=…)`: a cursor, or "oldest".
    """

    def __init__(self, code: str, status: int, detail: str, resume_after: str | None) -> None:
        super().__init__(code, status, detail)
        self.resume_after = resume_after or "oldest"


class WebhookInvalid(LinewatchError):  # noqa: N818
    """A webhook is not signed with the secret, is too old, or cannot be read."""


class BadAddress(LinewatchError):  # noqa: N818
    """The address is not a URL of HTTP."""


class BadKey(LinewatchError, ValueError):  # noqa: N818
    """The API key has characters that a key cannot have."""


class Unreachable(LinewatchError):  # noqa: N818
    """No response came: nothing listens at the address, or the connection broke."""


class TimedOut(LinewatchError):  # noqa: N818
    """Something did not happen in time; it may still happen."""


class BundleRejected(LinewatchError):  # noqa: N818
    """A worker could not load a bundle or did not reproduce its golden scores; the version stays unusable."""
