"""The model versions that this process has loaded: each once, and only the most recently used."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from sqlalchemy import Engine

from core.models import model_versions
from core.settings import Settings
from core.storage.image_store import Store, bundle_key
from core.vision.bundle.golden import check_golden
from core.vision.bundle.loading import load_detector
from core.vision.bundle.manifest import MANIFEST, digest, verify_bundle
from core.vision.bundle.tar import unpack
from core.vision.detectors.detector import Detector, ScoredImages
from core.vision.detectors.device import Device
from core.vision.errors import InvalidBundle
from core.vision.input.input_checks import InputRanges
from core.vision.input.preprocessing import PreparedImage, Preprocessing, SizedImage, prepare

log = logging.getLogger(__name__)


class ModelUnavailable(Exception):  # noqa: N818 - it names the state of the model
    """This worker cannot load a version, which is not the fault of an image."""


class LoadedModel:
    """A detector on its device.

    Attributes:
        inputs: the ranges of the input checks; None without input checks.
    """

    def __init__(self, loaded: Detector, inputs: InputRanges | None, device: Device) -> None:
        self._detector = loaded
        self._device = device
        self.inputs = inputs

    @property
    def preprocessing(self) -> Preprocessing:
        return self._detector.preprocessing

    def prepare(self, data: bytes) -> SizedImage:
        """See `core.vision.input.preprocessing.prepare`; runs in the caller's thread."""
        return prepare(data, self.preprocessing, max_pixels=self._detector.max_pixels)

    def score(self, images: Sequence[PreparedImage]) -> ScoredImages:
        """See `Detector.score`."""
        return self._device.score(self._detector, images)

    def score_each(self, images: Sequence[PreparedImage]) -> list[float | None]:
        """The scores of images; None for an image that raises, though a blank image does not.

        A minibatch that raises is halved: it may be too large for the memory, or one of its images is at fault.

        Raises:
            RuntimeError, MemoryError: the device is at fault.
        """
        if not images:
            return []
        try:
            scores: list[float | None] = [*self.score(images).scores.tolist()]
            return scores
        except (RuntimeError, MemoryError) as error:
            self.score([np.zeros_like(images[0])])  # raises if the device is at fault
            log.warning("a minibatch of %d images could not be scored: %s", len(images), error)
        if len(images) == 1:
            return [None]
        half = len(images) // 2
        return [*self.score_each(images[:half]), *self.score_each(images[half:])]


class Models:
    """Loads versions from the store and caches the most recently used. Thread-safe."""

    def __init__(self, settings: Settings, engine: Engine, store: Store) -> None:
        self._engine = engine
        self._store = store
        self._max_pixels = settings.max_image_pixels
        self._max_bytes = settings.max_bundle_bytes
        self._kept = settings.models_kept
        self._device = Device(settings.device)
        self._loaded: OrderedDict[int, LoadedModel] = OrderedDict()
        self._loading = threading.Lock()

    @property
    def device(self) -> str:
        """`cpu` or `cuda`."""
        return self._device.name

    def get(self, version_id: int) -> LoadedModel:
        """A version, which is loaded if it is not cached.

        Raises:
            ModelUnavailable: it cannot be loaded now.
        """
        with self._loading:
            if version_id not in self._loaded:
                self._loaded[version_id] = self._load(version_id)
                while len(self._loaded) > self._kept:
                    dropped, _ = self._loaded.popitem(last=False)
                    log.info("model version %d is unloaded", dropped)
            self._loaded.move_to_end(version_id)
            return self._loaded[version_id]

    def check(self, version_id: int) -> None:
        """Load a version, uncached, and reproduce its golden scores.

        Raises:
            InvalidBundle: the bundle is invalid, or its scores differ.
            core.intake.image_decoding.Undecodable: a golden image cannot be decoded.
        """
        files = self._files(version_id)
        loaded = self._loaded_on_device(files)
        self._device.run(check_golden, loaded, files)

    def _load(self, version_id: int) -> LoadedModel:
        try:
            files = self._files(version_id)
            loaded = self._loaded_on_device(files)
        except (InvalidBundle, OSError, RuntimeError) as error:  # RuntimeError: also out of device memory
            raise ModelUnavailable(f"model version {version_id} cannot be loaded: {error}") from error
        log.info("loaded model version %d on %s", version_id, self.device)
        return LoadedModel(loaded, verify_bundle(files).inputs, self._device)

    def _loaded_on_device(self, files: dict[str, bytes]) -> Detector:
        return self._device.run(load_detector, files, device=self._device.name, max_pixels=self._max_pixels)

    def _files(self, version_id: int) -> dict[str, bytes]:
        with self._engine.begin() as connection:
            sha256 = model_versions.by_id(connection, version_id).sha256
        with self._store.path(bundle_key(sha256)).open("rb") as tar:
            files = unpack(tar, max_bytes=self._max_bytes)
        if digest(files[MANIFEST]) != sha256.hex():
            raise InvalidBundle("the stored bundle is not the one that was registered")
        return files
