"""Parts: the combined verdict of all views of a part."""

from linewatch.http.request_bodies import as_text
from linewatch.operations.session import Session, url_path
from linewatch.types.results import Part


class Parts(Session):
    """Operations on parts."""

    async def part(self, part_id: str, *, recipe: str | None = None, lot_id: str | None = None) -> Part:
        """One part, by the newest inspection of each of its views.

        Example:
            for view, image in {"top": "part.png", "side": "scratched.png"}.items():
                lw.submit(image, recipe="ring", part_id="SN-4712", view=view, wait=30)
            print(lw.part("SN-4712", recipe="ring").effective_verdict)

        Args:
            recipe, lot_id: only inspections of this recipe or lot.

        Raises:
            Refused: the part has no inspections (`not_found`).
        """
        return await self._get(Part, url_path("parts", part_id), as_text({"recipe": recipe, "lot_id": lot_id}))
