"""`linewatch train --from-reviews`: learn from the inspections that people have reviewed."""

import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from linewatch.cli.commands.inspections import moment_type, with_zone
from linewatch.cli.failures import CommandFailed, WrongUse
from linewatch.cli.options import together
from linewatch.cli.terminal import advance_to, progress_bar, remark
from linewatch.errors import LinewatchError

if TYPE_CHECKING:
    from core.vision.evaluation.comparison import Comparison, LearnedFromReviews
    from core.vision.reviewed_parts.folder import ReviewedFolder
    from core.vision.reviewed_parts.images import Found, Gathered
    from core.vision.train import TrainingOptions
    from linewatch.client import Client, Filters

_COMPARED = 500
_FEW_OK, _FEW_NG = 20, 10
_FILTERS = ("since", "until", "lot_id", "line_id", "station_id")

review_options = together(
    [
        click.option(
            "--from-reviews",
            is_flag=True,
            help="Learn from the recipe's inspections that people have reviewed, and from --data if it is named.",
        ),
        click.option("--since", type=moment_type, help="For --from-reviews: only images accepted at or after."),
        click.option("--until", type=moment_type, help="For --from-reviews: only images accepted before."),
        click.option("--lot", "lot_id", help="For --from-reviews: only this lot."),
        click.option("--line", "line_id", help="For --from-reviews: only this line."),
        click.option("--station", "station_id", help="For --from-reviews: only this station."),
        click.option(
            "--compare",
            type=click.IntRange(min=0),
            metavar="N",
            help="For --from-reviews: compare with the verdicts of the N newest inspections. [500]",
        ),
    ]
)
"""The options of `take_review_options`."""


@dataclass(frozen=True)
class ReviewOptions:
    """The options of `--from-reviews`.

    Attributes:
        filters: which reviewed inspections to learn from.
        compare: the number of newest inspections to compare with.
    """

    filters: "Filters"
    compare: int


@dataclass
class Learning:
    """What a training from reviews learns from, and what it would have changed.

    Attributes:
        folder: the folder to train on.
        options: the options of the training.
        notes: lines for people about the images.
        comparison: None before `compare`, and if it failed or was not wanted.
    """

    folder: "ReviewedFolder"
    options: "TrainingOptions"
    notes: list[str]
    system: "Client"
    recipe: str
    compared: int
    counts: dict[str, int]
    comparison: "Comparison | None" = field(default=None, init=False)

    def compare(self, bundle: Path) -> "LearnedFromReviews":
        """Compare a new bundle with past inspections. If that fails, remark why: the bundle is good anyway."""
        from core.vision.evaluation.comparison import LearnedFromReviews

        try:
            self.comparison = self._comparison(bundle) if self.compared else None
        except LinewatchError as error:
            remark(f"The new version cannot be compared with past inspections: {error}")
        return LearnedFromReviews(self.notes, self.comparison)

    def _comparison(self, bundle: Path) -> "Comparison":
        from core.vision.reviewed_parts.comparison import NewVersion, compare
        from linewatch.server.reviewed_parts.past_inspections import newest_completed, with_images

        inspections = newest_completed(self.system, self.recipe, self.compared)
        version = NewVersion(bundle, device=self.options.device)
        with progress_bar("comparing", len(inspections)) as bar:
            images = with_images(self.system, inspections, version.prepare)
            return compare(images, version, trained_on=self.folder.trained_on, progress=partial(advance_to, bar))

    def document(self) -> dict[str, Any]:
        """Return the fields for the JSON output."""
        comparison = self.comparison.to_document() if self.comparison else None
        return {"reviews": {**self.counts, "notes": self.notes}, "comparison": comparison}

    def print_comparison(self) -> None:
        """Print what the new version would have changed."""
        if self.comparison is None:
            return
        for line in self.comparison.lines():
            click.echo(line)
        for change in self.comparison.changes:
            click.echo(f"{change.before} to {change.after}: {', '.join(change.examples)} (see `linewatch show ID`)")


def take_review_options(
    given: MutableMapping[str, Any], *, recipe: str | None, data: Path | None, out: Path | None, activate: bool
) -> ReviewOptions | None:
    """Remove the options of `review_options` from all given ones and return them; None without `--from-reviews`.

    Raises:
        WrongUse: they contradict each other or the others.
    """
    from_reviews, compare = given.pop("from_reviews"), given.pop("compare")
    filters = {name: value for name in _FILTERS if (value := given.pop(name)) is not None}
    if not from_reviews:
        if filters or compare is not None:
            raise WrongUse("--since, --until, --lot, --line, --station and --compare are for --from-reviews: add it")
        if data is None:
            raise WrongUse("name the folder of good parts with --data, or learn from reviews with --from-reviews")
        return None
    if recipe is None or out is not None:
        raise WrongUse("--from-reviews reads the reviews of a running system: name --recipe, and omit --out")
    if activate:
        raise WrongUse(
            "--from-reviews never activates a version: look at what it would have changed, and then run "
            f"`linewatch models activate --recipe {recipe} --version N`"
        )
    if data is None and given.get("group_by") is not None:
        raise WrongUse("--group-by is for the images of --data; reviewed images are grouped by their part_id: omit it")
    filters |= {name: with_zone(filters[name]) for name in ("since", "until") if name in filters}
    return ReviewOptions(cast("Filters", filters), _COMPARED if compare is None else compare)


@contextmanager
def learning_from_reviews(
    system: "Client",
    recipe: str,
    reviews: ReviewOptions,
    data: Path | None,
    options: "TrainingOptions",
    *,
    choice_is_open: bool,
) -> Iterator[Learning]:
    """Gather the reviewed images and make a folder to train on, which exists until the end of the `with` block.

    Args:
        data: a folder of good parts; None for none.
        options: of the training.
        choice_is_open: whether real defects choose the detector if there are any; otherwise the options say.

    Raises:
        CommandFailed: there is nothing to train on.
        InvalidDataset, InvalidGroups: see `make_folder`.
    """
    from core.vision.reviewed_parts.folder import make_folder
    from linewatch.server.reviewed_parts.gathering import download, find

    found = find(system, recipe, reviews.filters)
    _require_images(found, recipe, data)
    with tempfile.TemporaryDirectory(prefix="linewatch-") as temporary:
        with progress_bar("downloading", len(found.images)) as bar:
            gathered = download(system, found.images, Path(temporary, "images"), partial(advance_to, bar))
        with progress_bar("grouping") as bar:

            def show(done: int, total: int) -> None:
                bar.total = total
                advance_to(bar, done)

            folder = make_folder(
                gathered,
                data,
                Path(temporary, f"{recipe}-reviewed"),
                group_by=options.group_by,
                seed=options.seed,
                progress=show,
            )
        if folder.train_good == 0:
            raise CommandFailed("none of the images is left to train on: name a folder of good parts with --data")
        notes = _notes(folder, gathered, found, data)
        for note in notes:
            remark(note)
        yield Learning(
            folder=folder,
            options=_training_options(options, folder, choice_is_open),
            notes=notes,
            system=system,
            recipe=recipe,
            compared=reviews.compare,
            counts=_counts(folder, gathered, found),
        )


def _require_images(found: "Found", recipe: str, data: Path | None) -> None:
    """Refuse to learn from nothing.

    Raises:
        CommandFailed: no image has a review to learn from, or there is no good part.
    """
    if not found.images:
        count = len(found.confirmed)
        confirmed = f" ({count} reviews confirm an ok, which teaches nothing new)" if count else ""
        raise CommandFailed(
            f"no matching inspection of recipe {recipe!r} has a review to learn from{confirmed}: review rejected parts "
            "and missed defects with `linewatch review` first"
        )
    if data is None and all(image.verdict == "ng" for image in found.images):
        raise CommandFailed(
            f"no rejected part of recipe {recipe!r} was reviewed ok, so there is nothing to train on: name a folder of "
            "good parts with --data"
        )


def _training_options(options: "TrainingOptions", folder: "ReviewedFolder", choice_is_open: bool) -> "TrainingOptions":
    grouped = replace(options, group_by=folder.group_by)
    return replace(grouped, choose_by="test") if choice_is_open and folder.can_judge else grouped


def _counts(folder: "ReviewedFolder", gathered: "Gathered", found: "Found") -> dict[str, int]:
    return {
        "reviewed_ok": folder.reviewed_ok,
        "reviewed_ng": folder.reviewed_ng,
        "confirmed": len(found.confirmed),
        "missing": gathered.missing,
        "held_ok": folder.held_ok,
        "held_ordinary": folder.held_ordinary,
        "train_good": folder.train_good,
        "test_good": folder.test_good,
        "test_defective": folder.test_defective,
    }


def _notes(folder: "ReviewedFolder", gathered: "Gathered", found: "Found", data: Path | None) -> list[str]:
    """Describe for people what is learned from, and what cannot be done with so few reviews."""
    notes = [
        f"{_images(folder.reviewed_ok)} rejected by the machine and reviewed ok: {folder.held_ok} held in test/good.",
        f"{_images(folder.reviewed_ng)} reviewed ng: in test/reviewed-ng.",
    ]
    for count, what in (
        (folder.held_ordinary, f"of {data}/train/good held in test/good, too."),
        (gathered.missing, "skipped: no longer in the store."),
        (len(found.confirmed), "not used: ok for the machine and reviewed ok."),
        (folder.overruled, f"of {data} left out: reviewed otherwise."),
        (folder.also_in_test, f"of {data}/train/good left out: also in its test."),
    ):
        if count:
            notes.append(f"{_images(count)} {what}")
    return [*notes, *_warnings(folder, data)]


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"


def _warnings(folder: "ReviewedFolder", data: Path | None) -> list[str]:
    warnings = []
    if data is None:
        warnings.append(
            "Without --data, only false rejects are trained on: name the folder of good parts of the last training."
        )
    if not folder.test_defective:
        warnings.append("No defective image to choose the detector by or to judge it: synthetic defects choose it.")
    elif not folder.test_good:
        warnings.append("No good image to choose the detector by or to judge it: synthetic defects choose it.")
    elif folder.test_defective < _FEW_NG:
        warnings.append(
            f"Only {_images(folder.test_defective)} of defects to choose the detector by and to judge it: the choice "
            "may be chance, and the share that is caught is a rough figure."
        )
    if folder.test_defective and folder.reviewed_ok < _FEW_OK:
        warnings.append(
            f"Only {_images(folder.reviewed_ok)} reviewed ok, fewer than {_FEW_OK}: the share of good parts that is "
            "rejected in test/good is a rough figure."
        )
    if folder.held_ok:
        warnings.append(
            "test/good has parts that the machine had rejected, so more of them are rejected than of ordinary parts."
        )
    return warnings
