"""The progress of a backup or a restore: a bar on a terminal, and nothing elsewhere."""

from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

from linewatch.cli.terminal import advance_to, progress_bar

if TYPE_CHECKING:
    from tqdm import tqdm


class CopyProgress:
    """Shows one bar for each step. Use it in a `with` block."""

    def __init__(self) -> None:
        self._step = ""
        self._bar: tqdm[NoReturn] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, step: str, done: int, total: int | None) -> None:
        """Show how much of a step is done."""
        if step != self._step or self._bar is None:
            if self._bar is not None:
                self._bar.close()
            self._step, self._bar = step, progress_bar(step, total)
        advance_to(self._bar, done)
