"""Reviews: what waits for a person, who reviewed what, and undoing a review."""

from collections.abc import AsyncGenerator
from datetime import datetime
from uuid import UUID

from linewatch.http.request_bodies import as_text
from linewatch.http.transport import Request
from linewatch.operations.session import Session, url_path
from linewatch.types.results import Inspection
from linewatch.types.reviews import ListedReview, ReviewPage, ReviewProgress, ReviewQueuePage, WaitingInspection


class Reviews(Session):
    """Operations on the review queue and on reviews. `Inspections.review` adds a review."""

    async def review_queue(
        self, *, recipe: str | None = None, reviewer: str | None = None, page_size: int = 100
    ) -> AsyncGenerator[WaitingInspection, None]:
        """The inspections that wait for a person, oldest first. Pages of 1 to 1000 are fetched on demand.

        Args:
            reviewer: without those that this person has reviewed, because they wait for somebody else.
        """
        params = {"limit": page_size, **as_text({"recipe": recipe, "reviewer": reviewer})}
        async for page in self._pages(ReviewQueuePage, url_path("review-queue"), params):
            for inspection in page.items:
                yield inspection

    async def review_progress(
        self, *, recipe: str | None = None, reviewer: str | None = None, since: datetime | None = None
    ) -> ReviewProgress:
        """How much waits for a person, and how much was reviewed since a time; since midnight UTC by default.

        Example:
            progress = lw.review_progress(recipe="ring")
            print(progress.waiting.count, progress.reviewed.count)

        Args:
            reviewer: count only what this person may review.
            since: a time with a time zone.
        """
        params = as_text({"recipe": recipe, "reviewer": reviewer, "since": since})
        return await self._get(ReviewProgress, url_path("review-queue", "progress"), params)

    async def reviews(
        self,
        *,
        recipe: str | None = None,
        reviewer: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        page_size: int = 100,
    ) -> AsyncGenerator[ListedReview, None]:
        """All matching reviews, newest first, including retracted ones. Pages are fetched on demand.

        Args:
            reviewer: exactly this name.
            since, until: times with a time zone, at or after and before which a review was added.
        """
        filters = as_text({"recipe": recipe, "reviewer": reviewer, "since": since, "until": until})
        async for page in self._pages(ReviewPage, url_path("reviews"), {"limit": page_size, **filters}):
            for review in page.items:
                yield review

    async def retract_review(self, inspection_id: UUID | str, review_id: UUID | str, *, reviewer: str) -> Inspection:
        """Undo a review within 10 minutes, with the API key and the name with which it was added.

        Raises:
            Refused: it is the review of another person or key (`forbidden`), or too old (`invalid_transition`).
        """
        path = url_path("inspections", inspection_id, "reviews", review_id)
        return self._read(Inspection, await self._transport.json(Request("DELETE", path, {"reviewer": reviewer})))
