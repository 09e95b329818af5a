"""The record of what a model version can find, in its manifest. `core.vision.selection.detectability` measures it."""

from collections.abc import Sequence
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from core.vision.manifest_part import ManifestPart, Rate

_RELIABLE = 0.9
_UNRELIABLE = 0.5
_NAMES: Final = {
    "spot": "spots",
    "scratch": "scratches",
    "stain": "stains",
    "patch": "pasted patches",
    "blur": "blurred areas",
    "missing": "missing areas",
}


class DetectabilityCell(ManifestPart):
    """How many synthetic defects of one kind, size and contrast reach the threshold.

    Attributes:
        kind: see `core.vision.selection.synthetic_defects.Defect`.
        size_px: diameter, or the width of a scratch, in pixels of the image as sent.
        size_share: the same as a share of the side of the part, the square root of its area.
        contrast_percent: change of the grey levels in percent of the full scale; null for kinds without a contrast.
        caught: number of images at or above the threshold.
        count: number of images with such a defect.
        interval: 95 % Clopper-Pearson interval of the share that is caught.
    """

    kind: Annotated[str, Field(min_length=1, max_length=40)]
    size_px: Annotated[float, Field(gt=0)]
    size_share: Annotated[float, Field(gt=0)]
    contrast_percent: Annotated[float, Field(gt=0, le=100)] | None
    caught: Annotated[int, Field(ge=0)]
    count: Annotated[int, Field(ge=1)]
    interval: Annotated[tuple[Rate, Rate], Field(strict=False)]

    @model_validator(mode="after")
    def _catches_at_most_all(self) -> Self:
        if self.caught > self.count:
            raise ValueError("caught is larger than count")
        return self

    @property
    def share(self) -> float:
        """The share that is caught, 0 to 1."""
        return self.caught / self.count

    @property
    def strength(self) -> float:
        """How obvious the defect is: size times contrast; comparable within a kind only."""
        return self.size_share * (self.contrast_percent if self.contrast_percent is not None else 1.0)

    def describe(self) -> str:
        """Return the kind, size and contrast in words: `spots of 12 px and 20 % contrast`."""
        contrast = f" and {self.contrast_percent:.3g} % contrast" if self.contrast_percent is not None else ""
        return f"{_NAMES.get(self.kind, self.kind)} of {self.size_px:.3g} px{contrast}"


class Detectability(ManifestPart):
    """What a model version can find: synthetic defects on good parts that it was not trained on, at the threshold.

    Attributes:
        images: number of different good images that the defects were drawn into. Without one they are below the
            threshold, unless all good images are above it.
        cells: one for each kind, size and contrast.
        statement: what it finds and what it misses, in sentences for people.
        fit_for_use: false if almost nothing is caught; see `core.vision.selection.fitness`.
        reasons: why it is not fit for use, in clauses; empty if it is.
        advice: what to try then; empty if it is fit.
    """

    images: Annotated[int, Field(ge=1)]
    cells: Annotated[list[DetectabilityCell], Field(min_length=1)]
    statement: list[str]
    fit_for_use: bool
    reasons: list[str] = Field(default_factory=list)
    advice: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _says_why_it_is_not_fit(self) -> Self:
        if self.fit_for_use == bool(self.reasons):
            raise ValueError("reasons are for a model version that is not fit for use, and only for one")
        return self


def state(cells: Sequence[DetectabilityCell]) -> list[str]:
    """Say what is found and what is missed, in one or two sentences.

    For each kind, the first sentence has the faintest defect that is caught nine times out of ten, as all larger and
    stronger ones are; or else the largest and strongest one. The second has the most obvious defect that is missed more
    often than caught, unless the first already has it.

    Args:
        cells: at least one.
    """
    kinds = list(dict.fromkeys(cell.kind for cell in cells))
    by_kind = [[cell for cell in cells if cell.kind == kind] for kind in kinds]
    shown = [_shown(some) for some in by_kind]
    caught = "; ".join(f"{100 * cell.share:.0f} % of {cell.describe()}" for cell in shown)
    sentences = [f"At the threshold it catches {caught}."]
    missed = [_missed(some) for some, cell in zip(by_kind, shown, strict=True) if cell.share >= _UNRELIABLE]
    if names := "; ".join(cell.describe() for cell in missed if cell is not None):
        sentences.append(f"It misses most {names}.")
    return sentences


def _shown(cells: Sequence[DetectabilityCell]) -> DetectabilityCell:
    reliable = [cell for cell in cells if all(other.share >= _RELIABLE for other in _at_least(cell, cells))]
    return min(reliable, key=_strength) if reliable else max(cells, key=_strength)


def _missed(cells: Sequence[DetectabilityCell]) -> DetectabilityCell | None:
    return max((cell for cell in cells if cell.share < _UNRELIABLE), key=_strength, default=None)


def _at_least(cell: DetectabilityCell, cells: Sequence[DetectabilityCell]) -> list[DetectabilityCell]:
    """Return the cells whose defects are no smaller and no fainter."""
    contrast = cell.contrast_percent or 0.0
    return [other for other in cells if other.size_px >= cell.size_px and (other.contrast_percent or 0.0) >= contrast]


def _strength(cell: DetectabilityCell) -> float:
    return cell.strength
