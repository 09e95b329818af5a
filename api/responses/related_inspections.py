"""The JSON documents of what is related to an inspection: its neighbours, good parts like it, its re-scores."""

from typing import Self
from uuid import UUID

from pydantic import BaseModel, Field

from core.documents.documents import Inspection
from core.inspection import inspections
from core.rescoring.reports.documents import InspectionRescore


class SimilarInspection(Inspection):
    """An inspection of a good part. `similarity` says how alike its image looks, from 0 to 1."""

    similarity: float

    @classmethod
    def of_pair(cls, inspection: inspections.Inspection, similarity: float) -> Self:
        return cls(**dict(Inspection.of(inspection)), similarity=round(similarity, 4))


class SimilarInspections(BaseModel):
    """The good parts that look most like an image, the most similar first."""

    items: list[SimilarInspection]
    compared: int = Field(description="good parts whose thumbnails were compared")
    candidates: int = Field(description="good parts that were found; the others have no thumbnail yet")


class Neighbours(BaseModel):
    """The inspections next to one in a listing, which is sorted newest first. Null at its ends."""

    newer: UUID | None
    older: UUID | None


class InspectionRescorePage(BaseModel):
    """One page of the re-scoring history of an inspection. `next_cursor` is null on the last page."""

    items: list[InspectionRescore]
    next_cursor: str | None
