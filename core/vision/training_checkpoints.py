"""The checkpoints of a training, from which the same training continues after an interruption."""

from hashlib import sha256
from pathlib import Path

from core.vision.bundle.writing import library_versions
from core.vision.progress import OnProgress, Progress
from core.vision.selection.setup import Setup
from core.vision.training.checkpoint import CheckpointFile, fingerprint
from core.vision.training.dataset import dataset_digest
from core.vision.training_data import TrainingData
from core.vision.training_options import TrainingOptions


class TrainingCheckpoints:
    """The checkpoints of a training and of its choice, for the same images and options on the same kind of device."""

    def __init__(
        self,
        folder: Path | None,
        restart: bool,
        data: TrainingData,
        options: TrainingOptions,
        device: str,
        on_progress: OnProgress,
    ) -> None:
        self._folder = folder
        self._restart = restart
        self._data = data
        self._options = options
        self._device = device
        self._on_progress = on_progress
        self._open: list[CheckpointFile] = []

    def open(self, setup: Setup | None) -> CheckpointFile | None:
        """Return the checkpoint of the training with this setup, or, before there is one, of its choice.

        If the training starts afresh, the checkpoint is empty. None without a folder.
        """
        if self._folder is None:
            return None
        options, data = setup.options if setup is not None else self._options, self._data
        weights = options.backbone_weights
        key = fingerprint(
            {
                "images": dataset_digest(data.root, data.good.paths, data.good.digests),
                "groups": data.grouping.groups,
                "preprocessing": setup.preprocessing.digest if setup is not None else None,
                "options": options.recorded(),
                "backbone": sha256(weights.read_bytes()).hexdigest() if weights is not None else None,
                "device": self._device,
                "libraries": library_versions(),
            }
        )
        checkpoint = CheckpointFile(self._folder, key, self._note)
        if self._restart:
            checkpoint.remove()
        self._open.append(checkpoint)
        return checkpoint

    def remove(self) -> None:
        """Remove them, because the training has succeeded."""
        for checkpoint in self._open:
            checkpoint.remove()

    def _note(self, note: str) -> None:
        self._on_progress(Progress("training", 0, self._options.epochs, note=note))
