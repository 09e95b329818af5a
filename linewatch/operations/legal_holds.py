"""Legal holds: keep a lot or a part, whatever the retention of its recipe says."""

from collections.abc import AsyncGenerator
from typing import Literal
from uuid import UUID

from linewatch.http.request_bodies import as_text
from linewatch.operations.session import Session, url_path
from linewatch.types.holds import LegalHold, LegalHoldPage


class LegalHolds(Session):
    """Operations on legal holds."""

    async def legal_holds(
        self,
        *,
        state: Literal["active", "released"] | None = None,
        lot_id: str | None = None,
        part_id: str | None = None,
        page_size: int = 100,
    ) -> AsyncGenerator[LegalHold, None]:
        """Legal holds, newest first. Pages of 1 to 1000 are fetched on demand.

        Args:
            state: None for all.
            lot_id, part_id: only holds on this lot or on this part; if you name both, on either.
        """
        params = {"limit": page_size, **as_text({"state": state, "lot_id": lot_id, "part_id": part_id})}
        async for page in self._pages(LegalHoldPage, url_path("legal-holds"), params):
            for hold in page.items:
                yield hold

    async def legal_hold(self, hold_id: UUID | str) -> LegalHold:
        """One legal hold."""
        return await self._get(LegalHold, url_path("legal-holds", hold_id))

    async def set_legal_hold(self, *, lot_id: str | None = None, part_id: str | None = None, reason: str) -> LegalHold:
        """Set a hold on a lot or on a part. From the response on, nothing of it is removed until you release the hold.

        Example:
            hold = lw.set_legal_hold(lot_id="L-204", reason="complaint 17")
            for active in lw.legal_holds(state="active", lot_id="L-204"):
                print(active.id, active.actor, active.reason)
            lw.release_legal_hold(hold.id, reason="settled")

        Raises:
            Refused: unless exactly one of `lot_id` and `part_id` is given (`invalid_field`).
        """
        new = {"lot_id": lot_id, "part_id": part_id, "reason": reason}
        return await self._post(LegalHold, url_path("legal-holds"), new)

    async def release_legal_hold(self, hold_id: UUID | str, *, reason: str) -> LegalHold:
        """End a hold. What it kept goes by the `retention` of its recipe, unless another hold keeps it.

        Raises:
            Refused: it was released before (`invalid_transition`).
        """
        return await self._post(LegalHold, url_path("legal-holds", hold_id, "release"), {"reason": reason})
