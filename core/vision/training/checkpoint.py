"""Where an interrupted training left off: one file for each training that somebody asked for.

The file's name is a fingerprint of everything that decides about the weights, so that the same command goes on where
it was, and another one never meets a foreign state.
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
"""An abandoned checkpoint is removed after this long."""


def fingerprint(facts: Any) -> str:
    """SHA-256, in hexadecimal, of what can be written as JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, allow_nan=False).encode()).hexdigest()


class CheckpointFile:
    """The state of one training in a folder that several share: `core.vision.training.fit_interface.Checkpoint`."""

    def __init__(self, folder: Path, fingerprint: str, note: Callable[[str], None]) -> None:
        """Make the folder where it is missing, and remove the checkpoints that were forgotten in it.

        Args:
            folder: where checkpoints are kept.
            fingerprint: of the training; see `fingerprint`.
            note: called with one line that says whether the existing state is used.

        Raises:
            OSError: the folder cannot be made.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{fingerprint}.checkpoint"
        self._fingerprint = fingerprint
        self._note = note
        for other in folder.glob("*.checkpoint"):
            if other != self.path and other.stat().st_mtime < time.time() - ABANDONED_AFTER_SECONDS:
                other.unlink(missing_ok=True)

    def read(self) -> dict[str, Any] | None:
        """What was written last; None where there is nothing, or nothing that can be used.

        Nothing that the file may hold is run.
        """
        if not self.path.exists():
            return None
        try:
            found = torch.load(self.path, map_location="cpu", weights_only=True)
            known, state = found["fingerprint"], found["state"]
        except Exception:  # noqa: BLE001 - the unpickler raises every kind
            self._note(f"the checkpoint {self.path} is damaged and not used: training starts afresh")
            return None
        if known != self._fingerprint or not isinstance(state, dict):
            self._note(f"the checkpoint {self.path} is of another training and not used: training starts afresh")
            return None
        self._note(f"training goes on from the checkpoint {self.path}")
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Put a state in place of the last one: whenever this is interrupted, one of them is there as a whole.

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
        """Forget the state: the training has succeeded, or is to start afresh."""
        self.path.unlink(missing_ok=True)
