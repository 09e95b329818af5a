"""What is related to an inspection: its thumbnail, its neighbours, good parts like it, and its re-scores."""

from collections.abc import AsyncGenerator
from typing import Unpack
from uuid import UUID

from linewatch.http.request_bodies import as_text
from linewatch.operations.inspections import Filters
from linewatch.operations.session import Session, url_path
from linewatch.types.related import InspectionRescore, InspectionRescorePage, Neighbours, SimilarInspections


class RelatedInspections(Session):
    """Operations on what is related to an inspection."""

    async def thumbnail(self, inspection_id: UUID | str) -> bytes:
        """A small copy of the image: a JPEG, upright, no side above 256 pixels.

        Raises:
            Refused: the image cannot be decoded (`image_undecodable`).
        """
        return await self._transport.content(url_path("inspections", inspection_id, "thumbnail"))

    async def similar(self, inspection_id: UUID | str, *, limit: int = 6) -> SimilarInspections:
        """The good parts, inspected about the same time, that look most like this image.

        Example:
            inspection = lw.submit("scratched.png", recipe="ring", wait=30)
            for good in lw.similar(inspection.id).items:
                print(good.id, good.similarity)

        Args:
            limit: 1 to 50.

        Raises:
            Refused: the image cannot be decoded (`image_undecodable`).
        """
        return await self._get(SimilarInspections, url_path("inspections", inspection_id, "similar"), {"limit": limit})

    async def neighbours(self, inspection_id: UUID | str, **filters: Unpack[Filters]) -> Neighbours:
        """The ids of the next newer and the next older inspection of the listing with these filters.

        Example:
            inspection = lw.submit("part.png", recipe="ring", wait=30)
            print(lw.neighbours(inspection.id, recipe="ring", status="completed").older)
        """
        return await self._get(Neighbours, url_path("inspections", inspection_id, "neighbours"), as_text(filters))

    async def rescores(
        self, inspection_id: UUID | str, *, page_size: int = 100
    ) -> AsyncGenerator[InspectionRescore, None]:
        """The results that re-scoring runs and challengers have for an inspection, the newest run first.

        Example:
            inspection = lw.submit("part.png", recipe="ring", wait=30)
            lw.rescore("ring", 1, where={}, threshold=0.04, wait=60)
            for rescore in lw.rescores(inspection.id):
                print(rescore.run_id, rescore.threshold, rescore.verdict)
        """
        path = url_path("inspections", inspection_id, "rescores")
        async for page in self._pages(InspectionRescorePage, path, {"limit": page_size}):
            for rescore in page.items:
                yield rescore
