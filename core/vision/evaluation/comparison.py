"""Compare the verdicts of a new version with those of past inspections, and both with what people said."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

MAX_EXAMPLES: Final = 5
_WORST_FIRST: Final = (("ok", "ng"), ("ng", "ok"))


@dataclass(frozen=True)
class ComparedInspection:
    """One past inspection.

    Attributes:
        id: of the inspection.
        before: its recorded verdict, by the machine.
        after: the verdict of the new version.
        reviewed: the verdict that its reviews decided; None if they did not.
        trained_on: whether the new version was trained on its image, so that its verdict proves nothing.
    """

    id: str
    before: str
    after: str
    reviewed: str | None = None
    trained_on: bool = False


@dataclass(frozen=True)
class VerdictChange:
    """Inspections whose verdict would have changed, with the ids of the first of them."""

    before: str
    after: str
    count: int
    examples: list[str]


@dataclass(frozen=True)
class Agreement:
    """How often the machine agrees with people. `review` agrees with neither verdict.

    Attributes:
        reviewed: the number of reviewed inspections.
        before, after: how many of them have the reviewed verdict by the recorded and by the new verdict.
        misses_gone, new_misses: reviewed ng, and no longer or newly ok.
        false_rejects_gone, new_false_rejects: reviewed ok, and no longer or newly ng.
    """

    reviewed: int
    before: int
    after: int
    misses_gone: int
    new_misses: int
    false_rejects_gone: int
    new_false_rejects: int


@dataclass(frozen=True)
class Comparison:
    """The comparison with past inspections.

    Attributes:
        inspections: those compared, newest first.
        missing: the number of inspections whose image is no longer in the store.
        unscored: the number of inspections whose image the new version cannot score.
    """

    inspections: Sequence[ComparedInspection] = field(default_factory=list)
    missing: int = 0
    unscored: int = 0

    @property
    def changes(self) -> list[VerdictChange]:
        """The changed verdicts: from ok to ng and from ng to ok first, then the most frequent."""
        changed = [each for each in self.inspections if each.before != each.after]
        counts = Counter((each.before, each.after) for each in changed)
        order = [*_WORST_FIRST, *(pair for pair, _ in counts.most_common() if pair not in _WORST_FIRST)]
        return [
            VerdictChange(
                before,
                after,
                counts[before, after],
                [each.id for each in changed if (each.before, each.after) == (before, after)][:MAX_EXAMPLES],
            )
            for before, after in order
            if counts[before, after]
        ]

    @property
    def trained_on(self) -> int:
        """How many reviewed inspections the new version was trained on."""
        return sum(each.trained_on for each in self.inspections if each.reviewed is not None)

    def agreement(self, *, with_training: bool) -> Agreement:
        """Return the agreement with people, with or without the inspections that the version was trained on."""
        counts: Counter[str] = Counter()
        for each in self.inspections:
            if each.reviewed is None or (each.trained_on and not with_training):
                continue
            wrong = "ng" if each.reviewed == "ok" else "ok"
            counts["reviewed"] += 1
            counts["before"] += each.before == each.reviewed
            counts["after"] += each.after == each.reviewed
            counts[f"{each.reviewed} gone"] += each.before == wrong != each.after
            counts[f"{each.reviewed} new"] += each.after == wrong != each.before
        return Agreement(
            reviewed=counts["reviewed"],
            before=counts["before"],
            after=counts["after"],
            misses_gone=counts["ng gone"],
            new_misses=counts["ng new"],
            false_rejects_gone=counts["ok gone"],
            new_false_rejects=counts["ok new"],
        )

    def lines(self) -> list[str]:
        """Return the comparison as lines for people."""
        if not self.inspections:
            return ["There are no past inspections to compare with.", *self._skipped()]
        changes = ", ".join(f"{each.count} from {each.before} to {each.after}" for each in self.changes)
        changed = f"it would have changed {changes or 'no verdict'}"
        return [f"Of the newest inspections ({len(self.inspections)}) {changed}.", *self._agreed(), *self._skipped()]

    def _agreed(self) -> list[str]:
        every, fair = self.agreement(with_training=True), self.agreement(with_training=False)
        if every.reviewed == 0:
            return ["None of them has a review."]
        agreed = f"agree with the recorded verdict on {every.before}, with the new one on {every.after}"
        lines = [f"People reviewed {every.reviewed} of them and {agreed}."]
        if self.trained_on:
            others = f"Of the other {fair.reviewed}, they agree with {fair.before} before and {fair.after} now"
            lines.append(
                f"The new version was trained on {self.trained_on} of these, which proves nothing. "
                f"{others if fair.reviewed else 'There are no others'}."
            )
        lines.append(
            f"Missed defects: {every.misses_gone} fewer, {every.new_misses} new. "
            f"False rejects: {every.false_rejects_gone} fewer, {every.new_false_rejects} new."
        )
        return lines

    def _skipped(self) -> list[str]:
        lines = []
        if self.missing:
            lines.append(f"Skipped, because the image is no longer in the store: {self.missing}.")
        if self.unscored:
            lines.append(f"Skipped, because the new version cannot score the image: {self.unscored}.")
        return lines

    def to_document(self) -> dict[str, Any]:
        """Return the comparison as a JSON object."""
        return {
            "inspections": len(self.inspections),
            "missing": self.missing,
            "unscored": self.unscored,
            "changes": [
                {"from": each.before, "to": each.after, "count": each.count, "examples": each.examples}
                for each in self.changes
            ],
            "trained_on": self.trained_on,
            "agreement": vars(self.agreement(with_training=True)),
            "agreement_without_training": vars(self.agreement(with_training=False)),
        }


@dataclass(frozen=True)
class LearnedFromReviews:
    """What a training learned from reviews, for its report.

    Attributes:
        notes: lines for people about the images.
        comparison: None if the new version was not compared with past inspections.
    """

    notes: Sequence[str]
    comparison: Comparison | None
