"""The typed responses about what is related to an inspection."""

import datetime as dt
from uuid import UUID

from linewatch.types.base import Result
from linewatch.types.rescoring import Before
from linewatch.types.results import Failure, Inspection, Model


class Neighbours(Result, frozen=True):
    """The ids of the inspections next to one in a listing, which is sorted newest first; null at its ends."""

    newer: UUID | None
    older: UUID | None


class SimilarInspection(Inspection, frozen=True):
    """An inspection of a good part.

    Attributes:
        similarity: how alike its image looks, 0 to 1.
    """

    similarity: float


class SimilarInspections(Result, frozen=True):
    """The good parts that look most like an image.

    Attributes:
        items: the most similar first.
        compared: how many good parts were compared.
        candidates: how many were found; the others have no thumbnail yet, so a later request compares more.
    """

    items: list[SimilarInspection]
    compared: int
    candidates: int


class InspectionRescore(Result, frozen=True):
    """The result that a re-scoring run has for an inspection.

    Attributes:
        kind: `archive` or `challenger`.
        run_status: the status of the run now.
        number: the position of the image in the run's source, from 1.
        before: what was recorded when the run scored it; null if it had no verdict.
        flip: `ok_to_ng` and the like if the verdict has changed; else null.
    """

    run_id: UUID
    kind: str
    run_status: str
    model: Model
    number: int
    anomaly_score: float | None
    threshold: float | None
    review_threshold: float | None
    verdict: str | None
    before: Before | None
    flip: str | None
    reasons: list[str]
    error: Failure | None
    scored_at: dt.datetime


class InspectionRescorePage(Result, frozen=True):
    """One page of the re-scoring history of an inspection."""

    items: list[InspectionRescore]
    next_cursor: str | None
