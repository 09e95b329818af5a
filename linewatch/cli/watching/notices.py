"""What `linewatch watch` prints: a line for each image, the begin and the end of each trouble, and a summary."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from linewatch.cli.refusals import Refusal
from linewatch.cli.terminal import print_json, remark
from linewatch.types.results import Inspection


class Notices:
    """Prints for a person, or for the log of a service, and counts images."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._troubles: dict[str, tuple[str, float]] = {}
        self._accepted = 0
        self._rejected = 0

    def add(self, outcome: Inspection | Refusal) -> None:
        """Print what became of an image."""
        if isinstance(outcome, Refusal):
            self._rejected += 1
            line = outcome.line
        else:
            self._accepted += 1
            line = f"accepted {outcome.external_id} {outcome.id}"
        if self._as_json:
            print_json(outcome.document)
        else:
            click.echo(line)
        sys.stdout.flush()

    def say(self, line: str) -> None:
        """Print a line that is not about the outcome of an image."""
        remark(line)

    def begin(self, subject: str, trouble: str) -> None:
        """Print a trouble of a subject, once until it ends or changes."""
        printed, since = self._troubles.get(subject, ("", time.monotonic()))
        if trouble != printed:
            remark(trouble)
        self._troubles[subject] = (trouble, since)

    def end(self, subject: str) -> None:
        """Print that a trouble is over; nothing if there was none."""
        if subject in self._troubles:
            _, since = self._troubles.pop(subject)
            remark(f"{subject}: all right again after {time.monotonic() - since:.0f} s.")

    @contextmanager
    def summarised(self) -> Iterator[None]:
        """Print how many images were accepted and rejected, at the end of the block."""
        failed = True
        try:
            yield
            failed = False
        finally:
            if self._accepted or self._rejected or not failed:
                remark(f"{self._accepted} images were accepted and {self._rejected} rejected.")

    @property
    def has_rejected(self) -> bool:
        return self._rejected > 0
