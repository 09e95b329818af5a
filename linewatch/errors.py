"""What can go wrong between a client and a running system; every message says what to do."""

from typing import Any


class LinewatchError(Exception):
    """Something that was asked of a running system was not done; the message is one line for people."""


class Refused(LinewatchError):  # noqa: N818 - it reads as what happened: the request was refused
    """The system answered, and refused.

    Attributes:
        code: stable, for programs, such as `recipe_unknown`; `http_<status>` where the answer was not Linewatch's.
        status: of HTTP.
        detail: what is wrong and what to do, for people.
    """

    def __init__(self, code: str, status: int, detail: str) -> None:
        super().__init__(f"{detail} ({code})")
        self.code = code
        self.status = status
        self.detail = detail


class GateNotMet(Refused):
    """A run does not meet the gate of its activation; nothing was activated.

    Attributes:
        gate: every rule with `rule`, `limit`, `measured`, `count`, `of`, `bound`, `met` and `detail`.
    """

    def __init__(self, code: str, status: int, detail: str, gate: list[dict[str, Any]]) -> None:
        super().__init__(code, status, detail)
        self.gate = gate


class CursorLost(Refused):
    """The place in the feed after which results were asked for is not there any more; some may have been missed.

    `code` is `cursor_expired` where its results are no longer kept, `cursor_epoch` where the database was restored.

    Attributes:
        resume_after: where to go on, as `results(after=…)` takes it: a cursor, or "oldest".
    """

    def __init__(self, code: str, status: int, detail: str, resume_after: str | None) -> None:
        super().__init__(code, status, detail)
        self.resume_after = resume_after or "oldest"


class WebhookInvalid(LinewatchError):  # noqa: N818
    """A request that should be a webhook is not signed with its secret, is too old, or cannot be read."""


class BadAddress(LinewatchError):  # noqa: N818
    """What should be the address of a system is none."""


class BadKey(LinewatchError, ValueError):  # noqa: N818
    """What should be an API key is none."""


class Unreachable(LinewatchError):  # noqa: N818
    """No answer came: nothing listens at the address, or the connection broke."""


class TimedOut(LinewatchError):  # noqa: N818
    """What was waited for did not happen in time; it may still happen."""


class BundleRejected(LinewatchError):  # noqa: N818
    """A worker could not load an uploaded bundle or did not reproduce its golden scores; the version stays unusable."""
