"""An image of a training run, as the training worker hands it to the process that trains."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RunImage:
    """An image of a run; see `core.training_runs.images.TrainingImage`.

    Attributes:
        path: of the file in the store.
        sha256: of the file, in hexadecimal.
        suffix: the file suffix of its format.
    """

    path: str
    sha256: str
    suffix: str
    label: str
    name: str | None = None
    inspection_id: str | None = None
    part_ids: Sequence[str] = ()
    was_rejected: bool = False
