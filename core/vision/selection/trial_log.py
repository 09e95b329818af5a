"""The trials that a choice has finished, kept in a checkpoint, so that an interrupted choice does not repeat them."""

from typing import Final

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from core.vision.selection.trial import Trial
from core.vision.training.fit_interface import Checkpoint


@dataclass(frozen=True)
class Finished:
    """The trials of one input size, pose and backbone, and the seconds that they took."""

    trials: list[Trial]
    seconds: float


_ADAPTER: Final = TypeAdapter(dict[str, Finished])


class TrialLog:
    """Finished trials by a key that names everything they depend on within one choice."""

    def __init__(self, checkpoint: Checkpoint | None) -> None:
        """Read what the checkpoint has; None keeps nothing beyond this process."""
        self._checkpoint = checkpoint
        state = checkpoint.read() if checkpoint is not None else None
        self._finished = _ADAPTER.validate_json(state["finished"]) if state is not None else {}

    def get(self, key: str) -> Finished | None:
        """Return what was finished under this key."""
        return self._finished.get(key)

    def add(self, key: str, finished: Finished) -> None:
        """Keep finished trials.

        Raises:
            OSError: the checkpoint cannot be written.
        """
        self._finished[key] = finished
        if self._checkpoint is not None:
            self._checkpoint.write({"finished": _ADAPTER.dump_json(self._finished).decode()})
