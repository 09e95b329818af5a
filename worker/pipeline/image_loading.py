"""Read a stored image, prepare it and check it, in this thread or in a child process.

Every fault of an image becomes `Undecodable`. Every other exception is a fault of the store or of this machine.
"""

import datetime as dt
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.errors import Failure
from core.intake.image_decoding import Undecodable
from core.storage.image_store import Store, image_key
from core.vision.input.input_checks import ImageMeasurements, InputRanges, failed_checks, measure_image
from core.vision.input.prepared_image import PreparedImage, SizedImage
from worker.pipeline.faults import describe
from worker.pipeline.isolated_decoding import Unfinished
from worker.pipeline.loaded_models import LoadedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckedImage:
    """A prepared image, the input checks that it failed, and its measurements; None without input checks."""

    pixels: PreparedImage
    reasons: list[str]
    measured: ImageMeasurements | None


class Unprepared(Exception):  # noqa: N818 - it names the state of the image
    """Preparing an image raised something unexpected. Prepare it again in a child process."""


def read_stored(store: Store, day: dt.date, sha256: bytes, *, unreadable: Failure) -> bytes:
    """The file of a stored image.

    Args:
        unreadable: the failure of an image that is missing or cannot be read, though the store is available.

    Raises:
        Undecodable: the image is at fault.
        OSError: the store is unavailable.
    """
    key = image_key(day, sha256)
    try:
        data = store.read(key)
    except OSError:
        store.check()  # raises if the store is unavailable, which is not the image's fault
        data = _read_again(store, key, unreadable)
    if hashlib.sha256(data).digest() != sha256:
        raise Undecodable(Failure.IMAGE_CHECKSUM_MISMATCH, "The stored image is not the one that was uploaded.")
    return data


def _read_again(store: Store, key: str, unreadable: Failure) -> bytes:
    """Read a file that could not be read when the store may have been unavailable."""
    try:
        return store.read(key)
    except FileNotFoundError:
        raise Undecodable(unreadable, "The stored image is missing.") from None
    except OSError as error:
        raise Undecodable(unreadable, f"The stored image cannot be read: {error.strerror or error}.") from error


def prepare_here(model: LoadedModel, data: bytes) -> CheckedImage:
    """Prepare and check an image in this thread.

    Raises:
        Undecodable: the image is at fault.
        Unprepared: anything else.
    """
    try:
        return _checked(model.prepare(data), model.inputs)
    except Undecodable:
        raise
    except Exception as error:
        log.warning("an image could not be prepared: %s", describe(error))
        raise Unprepared from error


def prepare_in_child(prepare: Callable[[Path], SizedImage], path: Path, inputs: InputRanges | None) -> CheckedImage:
    """Prepare an image in a child process, and check it.

    Args:
        prepare: a method of an `IsolatedDecoder`.

    Raises:
        Undecodable: the image is at fault; also if preparing or checking it raised something unexpected.
        OSError, MemoryError: this machine is at fault: it cannot start a child, for example.
        Unfinished: see `IsolatedDecoder.prepare_quickly`.
    """
    try:
        return _checked(prepare(path), inputs)
    except (Undecodable, Unfinished, OSError, MemoryError):
        raise
    except Exception as error:
        detail = f"the image cannot be prepared: {describe(error)}"
        log.warning("%s", detail)
        raise Undecodable(Failure.IMAGE_UNDECODABLE, detail) from error


def _checked(image: SizedImage, inputs: InputRanges | None) -> CheckedImage:
    if inputs is None:
        return CheckedImage(image.pixels, [*image.reasons], None)
    measured = measure_image(image)
    return CheckedImage(image.pixels, [*image.reasons, *failed_checks(measured, inputs)], measured)
