"""The policy of a recipe: how long its images and inspections are kept."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_DAYS = 36_500
Days = Annotated[int, Field(strict=True, ge=1, le=MAX_DAYS)]


class RetentionPolicy(BaseModel):
    """How long the images and inspections of a recipe are kept, in days (UTC). Null keeps them.

    An image of day D is kept through day D + n; its inspection remains. It goes once every inspection that has the
    image lets it go. `ok_images_days` is for parts with the verdict `ok`, and `ng_images_days` for all others. An
    image is kept for the longest of the machine's verdict and the verdicts of its reviews. Inspections end by months,
    `rows_days` after the last day of the month, with their images, reviews and batches.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ok_images_days: Days | None = None
    ng_images_days: Days | None = Field(None, description="for `ng`, and for failed and cancelled inspections")
    review_images_days: Days | None = Field(None, description="for the verdict `review`; null: `ng_images_days`")
    rows_days: Days | None = None

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.rows_days is not None:
            for name in ("ok_images_days", "ng_images_days", "review_images_days"):
                days = getattr(self, name)
                if days is not None and days > self.rows_days:
                    raise ValueError(f"{name} must not be above rows_days: an image ends with its inspection")
        return self
