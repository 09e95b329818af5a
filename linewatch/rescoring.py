"""What a running system answers of the pictures of a re-scoring run, typed."""

import datetime as dt
from typing import Any
from uuid import UUID

from linewatch.results import Failure, RescoreRun, Result


class Before(Result):
    """What was recorded of an inspection when it was scored again; `model_version` is the one that had scored it."""

    anomaly_score: float | None
    threshold: float | None
    verdict: str
    model_version: int | None


class RescoreResult(Result):
    """One picture of a run, scored again.

    Attributes:
        number: its place in the source, from 1.
        path: of a picture in a folder or of a manifest; null for a stored inspection.
        before: null for a picture that was never inspected, or had no verdict.
        reviewed_verdict: of the newest review of the inspection; null where there is none.
        flip: such as `ok_to_ng`; null where the verdict stays, or there was none.
        error: why it could not be scored; then there is neither score nor verdict.
    """

    number: int
    inspection_id: UUID | None
    path: str | None
    external_id: str | None
    part_id: str | None
    lot_id: str | None
    line_id: str | None
    station_id: str | None
    captured_at: dt.datetime | None
    metadata: dict[str, Any] | None
    image_sha256: str | None
    before: Before | None
    anomaly_score: float | None
    threshold: float | None
    review_threshold: float | None
    verdict: str | None
    reviewed_verdict: str | None
    flip: str | None
    reasons: list[str]
    error: Failure | None
    scored_at: dt.datetime


class RescoreRunPage(Result):
    """One page of the runs."""

    items: list[RescoreRun]
    next_cursor: str | None


class RescoreResultPage(Result):
    """One page of the results of a run."""

    items: list[RescoreResult]
    next_cursor: str | None
