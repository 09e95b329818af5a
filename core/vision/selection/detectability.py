"""Measure what a detector can find: synthetic defects of known sizes and contrasts, drawn into good parts."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from scipy import stats

from core.vision.bundle.detectability import Detectability, DetectabilityCell, state
from core.vision.bundle.manifest import Metrics
from core.vision.evaluation.metrics import Scores, auroc
from core.vision.input.prepared_image import PreparedImage
from core.vision.selection.fitness import Obvious, judge
from core.vision.selection.part_appearance import PartAppearance
from core.vision.selection.synthetic_defects import Defect, Kind, draw, random_defect

ROUNDS: Final = 10
"""Images with each defect, if there is time."""
_MIN_ROUNDS = 4
_MINIBATCH = 16
_SIZES: Final[dict[Kind, tuple[float, ...]]] = {
    "spot": (0.01, 0.02, 0.04, 0.08),
    "scratch": (0.0025, 0.005, 0.01, 0.02),
    "stain": (0.05, 0.1, 0.2, 0.3),
    "patch": (0.04, 0.07, 0.12, 0.2),
    "blur": (0.06, 0.1, 0.16, 0.25),
    "missing": (0.02, 0.04, 0.08, 0.15),
}
"""Sizes as shares of the side of the part. They are rounded to whole pixels of the image as sent."""
_CONTRASTS: Final[dict[Kind, tuple[float, ...]]] = {
    "spot": (5.0, 10.0, 20.0, 40.0),
    "scratch": (5.0, 10.0, 20.0, 40.0),
    "stain": (2.5, 5.0, 10.0, 20.0),
}
"""Contrasts in percent of the full scale. Other kinds have none: they are drawn with full opacity."""
_OBVIOUS_KINDS: Final[tuple[Kind, ...]] = ("spot", "scratch")
_OBVIOUS_CONTRASTS = 2
"""Obvious are the largest spots and scratches with this many of the strongest contrasts; see `fitness`."""


Score = Callable[[Sequence[PreparedImage]], Scores]
"""Scores N prepared images: float64, (N,); higher is less normal."""


@dataclass(frozen=True)
class HeldOutPart:
    """A good part and a detector that was not trained on it.

    Attributes:
        image: uint8 or float32, (height, width, 3), 0 to 255.
        score: of that detector.
    """

    image: PreparedImage
    score: Score


@dataclass(frozen=True)
class _GridDefect:
    kind: Kind
    size_px: int
    size_share: float
    contrast_percent: float | None
    obvious: bool

    def drawn_as(self, seed: int, number: int) -> Defect:
        """Return the defect of a round. Place and shape are the same for all sizes and contrasts of a kind."""
        random = np.random.default_rng([seed, number, list(_SIZES).index(self.kind)])
        contrast = 1.0 if self.contrast_percent is None else self.contrast_percent / 100 * 255
        return random_defect(self.kind, self.size_share, contrast, random)


def measure_detectability(
    parts: Sequence[HeldOutPart],
    appearance: PartAppearance,
    threshold: float,
    covered: tuple[float, float],
    *,
    metrics: Metrics | None = None,
    seed: int = 0,
    rounds: int = ROUNDS,
    max_seconds: float = 60.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Detectability:
    """Measure the share of synthetic defects that reach the threshold, by kind, size and contrast.

    A round draws each defect into the image of one part and scores it. The parts are those that are accepted without a
    defect, in random order, or all of them if none is. Only the number of rounds depends on the time.

    Args:
        parts: at least one.
        appearance: of the part in their images.
        threshold: scores at or above it are `ng`.
        covered: (width, height) in pixels of the image as sent that a prepared image shows: all of it, or the crop.
        metrics: detection on real parts, if it was measured; it counts for `fit_for_use`.
        seed: of everything random.
        rounds: the largest number of images for each defect.
        max_seconds: no round begins later than this, except the first four.
        progress: called with the number of images scored so far and in all.
    """
    started = time.monotonic()
    grid = _grid(appearance.side(*covered))
    good = np.concatenate([part.score([part.image]) for part in parts])
    accepted = np.flatnonzero(good < threshold) if (good < threshold).any() else np.arange(len(parts))
    order = np.random.default_rng(seed).permutation(accepted).tolist()
    scores: list[Scores] = []
    for number in range(rounds):
        if number >= min(_MIN_ROUNDS, rounds) and time.monotonic() - started > max_seconds:
            break
        part, donor = (parts[order[(number + step) % len(order)]] for step in (0, 1))
        draw_into_part = partial(
            draw,
            part.image,
            appearance=appearance,
            donor=donor.image,
            aspect=covered[0] / covered[1],
            foregrounds=(appearance.foreground(part.image), appearance.foreground(donor.image)),
        )
        drawn = (draw_into_part(defect.drawn_as(seed, number)).pixels for defect in grid)
        scores.append(_score_all(part.score, drawn))
        progress(len(grid) * (number + 1), len(grid) * rounds)
    return _record(grid, np.stack(scores, axis=1), good, threshold, min(len(order), len(scores)), metrics)


def _grid(side_px: float) -> list[_GridDefect]:
    """Return the defects of a round.

    Args:
        side_px: the side of the part in pixels of the image as sent.
    """
    grid: list[_GridDefect] = []
    for kind, shares in _SIZES.items():
        size_px = 0
        for share in shares:
            size_px = max(size_px + 1, round(share * side_px))
            contrasts: Sequence[float | None] = _CONTRASTS.get(kind, (None,))
            strong = contrasts[-_OBVIOUS_CONTRASTS:] if kind in _OBVIOUS_KINDS and share == shares[-1] else ()
            grid.extend(
                _GridDefect(kind, size_px, size_px / side_px, contrast, contrast in strong) for contrast in contrasts
            )
    return grid


def _score_all(score: Score, images: Iterator[PreparedImage]) -> Scores:
    scores, minibatch = [], []
    for image in images:
        minibatch.append(image)
        if len(minibatch) == _MINIBATCH:
            scores.append(score(minibatch))
            minibatch = []
    if minibatch:
        scores.append(score(minibatch))
    return np.concatenate(scores)


def _record(
    grid: Sequence[_GridDefect],
    scores: Scores,
    good: Scores,
    threshold: float,
    images: int,
    metrics: Metrics | None,
) -> Detectability:
    """Return the record for the scores (defects of the grid, rounds)."""
    caught = (scores >= threshold).sum(axis=1).tolist()
    cells = [_cell(defect, number, scores.shape[1]) for defect, number in zip(grid, caught, strict=True)]
    obvious = scores[[index for index, defect in enumerate(grid) if defect.obvious]]
    fitness = judge(
        Obvious(int((obvious >= threshold).sum()), obvious.size, auroc(good, obvious.ravel())),
        metrics,
    )
    return Detectability(
        images=images,
        cells=cells,
        statement=state(cells),
        fit_for_use=fitness.fit,
        reasons=fitness.reasons,
        advice=fitness.advice,
    )


def _cell(defect: _GridDefect, caught: int, count: int) -> DetectabilityCell:
    interval = stats.binomtest(caught, count).proportion_ci(0.95, method="exact")
    return DetectabilityCell(
        kind=defect.kind,
        size_px=defect.size_px,
        size_share=defect.size_share,
        contrast_percent=defect.contrast_percent,
        caught=caught,
        count=count,
        interval=(float(interval.low), float(interval.high)),
    )
