"""Checkpoints: the state of an interrupted training, one file per training.

The name of the file is a fingerprint of everything that determines the weights, so that the same command continues
where it stopped and another one never loads a foreign state.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

ABANDONED_AFTER_SECONDS: Final = 30 * 24 * 3600
"""Checkpoints that were not written for this long are removed."""


def fingerprint(facts: Any) -> str:
    """Return the SHA-256, in hexadecimal, of a value that can be written as JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, allow_nan=False).encode()).hexdigest()


class CheckpointFile:
    """The checkpoint of a training in a shared folder, a `core.vision.training.fit_interface.Checkpoint`."""

    def __init__(self, folder: Path, fingerprint: str, note: Callable[[str], None]) -> None:
        """Create the folder if it is missing, and remove abandoned checkpoints from it.

        Args:
            folder: the folder for checkpoints.
            fingerprint: of the training; see `fingerprint`.
            note: called with one line that says whether an existing state is used.

        Raises:
            OSError: the folder cannot be created.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{fingerprint}.checkpoint"
        self._fingerprint = fingerprint
        self._note = note
        for other in folder.glob("*.checkpoint"):
            if other != self.path and other.stat().st_mtime < time.time() - ABANDONED_AFTER_SECONDS:
                other.unlink(missing_ok=True)

    def read(self) -> dict[str, Any] | None:
        """Return the last state, or None if there is none that can be used.

        Never executes code from the file.
        """
        if not self.path.exists():
            return None
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            stored_fingerprint, state = content["fingerprint"], content["state"]
        except Exception:  # noqa: BLE001 - the unpickler raises exceptions of any type
            self._note(f"the checkpoint {self.path} is damaged and not used: training starts afresh")
            return None
        if stored_fingerprint != self._fingerprint or not isinstance(state, dict):
            self._note(f"the checkpoint {self.path} is of another training and not used: training starts afresh")
            return None
        self._note(f"training continues from the checkpoint {self.path}")
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Replace the last state atomically: an interruption leaves either the old or the new one.

        Raises:
            OSError: the folder cannot be written to.
        """
        draft = self.path.with_suffix(f".{os.getpid()}.checkpoint")
        try:
            with draft.open("wb") as file:
                torch.save({"fingerprint": self._fingerprint, "state": state}, file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
        finally:
            draft.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the state, because the training has succeeded or has to start afresh."""
        self.path.unlink(missing_ok=True)
