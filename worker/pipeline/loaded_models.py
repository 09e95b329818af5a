"""The model versions that this process has loaded: each once, and only the most recently used."""

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from core.errors import Failure
from core.intake.image_decoding import Undecodable
from core.models import model_versions
from core.models.model_versions import ModelVersion
from core.settings import Settings
from core.storage.image_store import Store, bundle_key
from core.vision.bundle.golden import check_golden
from core.vision.bundle.loading import load_detector
from core.vision.bundle.manifest import MANIFEST, digest, verify_bundle
from core.vision.bundle.tar import unpack
from core.vision.detectors.compiled_network import NotCompiled
from core.vision.detectors.detector import Detector, ScoredImages
from core.vision.detectors.device import Device, is_out_of_memory
from core.vision.errors import InvalidBundle
from core.vision.input.input_checks import InputRanges
from core.vision.input.prepared_image import PreparedImage, SizedImage
from core.vision.input.preprocessing import prepare
from core.vision.input.record import Preprocessing
from worker.pipeline.faults import WorkerUnfit, describe
from worker.pipeline.minibatch_size import find_minibatch_size
from worker.pipeline.throughput import Throughput

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

RETRY_SECONDS = 5.0
"""A version that could not be loaded is tried again after this time. Meanwhile other versions can be loaded."""
UNSCORABLE = "The model cannot score this image, though it scores others."


class ModelUnavailable(Exception):  # noqa: N818 - it names the state of the model
    """This worker cannot load a version, which is not the fault of an image."""


class LoadedModel:
    """A detector on its device.

    Attributes:
        inputs: the ranges of the input checks; None without input checks.
        minibatch: the number of images that it should score at once.
        label: its recipe and the number of its version, for metrics.
    """

    def __init__(
        self, loaded: Detector, inputs: InputRanges | None, device: Device, minibatch: int, label: tuple[str, str]
    ) -> None:
        self._detector = loaded
        self._device = device
        self.inputs = inputs
        self.minibatch = minibatch
        self.label = label

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
            WorkerUnfit: the device is at fault.
            RuntimeError, MemoryError: there is no memory left even for a single image.
        """
        if not images:
            return []
        try:
            scores: list[float | None] = [*self.score(images).scores.tolist()]
            return scores
        except Exception as error:  # noqa: BLE001 - whatever it is, the probe finds out whose fault it is
            self._probe(images[0])
            log.warning("a minibatch of %d images could not be scored: %s", len(images), describe(error))
        if len(images) == 1:
            return [None]
        half = len(images) // 2
        return [*self.score_each(images[:half]), *self.score_each(images[half:])]

    def anomaly_map(self, image: PreparedImage) -> NDArray[np.float32]:
        """The anomaly map of one image, (rows, columns).

        Raises:
            Undecodable: the image raises, though a blank image does not.
            WorkerUnfit, RuntimeError, MemoryError: see `score_each`.
        """
        try:
            anomaly: NDArray[np.float32] = self.score([image]).maps[0]
        except Exception as error:
            self._probe(image)
            raise Undecodable(Failure.POISON, UNSCORABLE) from error
        return anomaly

    def _probe(self, like: PreparedImage) -> None:
        """Score a blank image; raises if the device is at fault. Raises: see `score_each`."""
        try:
            self.score([np.zeros_like(like)])
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise WorkerUnfit(f"the device cannot score a blank image: {describe(error)}") from error


class Models:
    """Loads versions from the store and caches the most recently used. Thread-safe.

    Attributes:
        throughput: of all the minibatches that are scored with them.
        loaded_ids: the ids of the cached versions, the most recently used last; reading it never waits.
        minibatch: the number of images to score at once with the version that was used last; likewise.
    """

    def __init__(self, settings: Settings, engine: Engine, store: Store) -> None:
        self._engine = engine
        self._store = store
        self._max_pixels = settings.max_image_pixels
        self._max_bytes = settings.max_bundle_bytes
        self._kept = settings.models_kept
        self._device = Device(settings.device)
        self._loaded: OrderedDict[int, LoadedModel] = OrderedDict()
        self._failures: dict[int, tuple[float, str]] = {}
        """When each version that could not be loaded may be tried again, and why it could not."""
        self._loading = threading.Lock()
        self.minibatch = self._smallest_minibatch = settings.minibatch
        self.throughput = Throughput()
        self.loaded_ids: tuple[int, ...] = ()

    @property
    def device(self) -> str:
        """`cpu` or `cuda`."""
        return self._device.name

    def get(self, version_id: int) -> LoadedModel:
        """A version, which is loaded if it is not cached.

        Raises:
            ModelUnavailable: it cannot be loaded now.
            WorkerUnfit: the device is at fault.
        """
        with self._loading:
            if version_id not in self._loaded:
                self._loaded[version_id] = self._load_unless_failed(version_id)
                while len(self._loaded) > self._kept:
                    dropped, _ = self._loaded.popitem(last=False)
                    log.info("model version %d is unloaded", dropped)
            self._loaded.move_to_end(version_id)
            self.loaded_ids = tuple(self._loaded)
            self.minibatch = self._loaded[version_id].minibatch
            return self._loaded[version_id]

    def check(self, version_id: int) -> None:
        """Load a version, uncached, and reproduce its golden scores.

        Raises:
            InvalidBundle: the bundle is invalid, or its scores differ.
            core.intake.image_decoding.Undecodable: a golden image cannot be decoded.
            WorkerUnfit: the device is at fault.
        """
        self._loaded_on_device(self._files(self._version(version_id)))

    def _load_unless_failed(self, version_id: int) -> LoadedModel:
        retry_at, why = self._failures.get(version_id, (-math.inf, ""))
        if time.monotonic() < retry_at:
            raise ModelUnavailable(why)
        try:
            loaded = self._load(version_id)
        except ModelUnavailable as error:
            self._failures[version_id] = (time.monotonic() + RETRY_SECONDS, str(error))
            raise
        self._failures.pop(version_id, None)
        return loaded

    def _load(self, version_id: int) -> LoadedModel:
        version = self._version(version_id)
        try:
            files = self._files(version)
            loaded = self._loaded_on_device(files)
        except WorkerUnfit:
            raise
        except (InvalidBundle, Undecodable, OSError, RuntimeError) as error:  # RuntimeError: also out of device memory
            raise ModelUnavailable(f"model version {version_id} cannot be loaded: {error}") from error
        smallest = self._smallest_minibatch
        minibatch = smallest if self.device == "cpu" else self._run(self._find_minibatch_size, loaded)
        log.info("loaded model version %d on %s, in minibatches of %d", version_id, self.device, minibatch)
        label = (version.recipe, f"{version.version}")
        return LoadedModel(loaded, verify_bundle(files).inputs, self._device, minibatch, label)

    def _find_minibatch_size(self, detector: Detector) -> int:
        preprocessing = detector.preprocessing
        blank = np.zeros((preprocessing.height, preprocessing.width, 3), preprocessing.dtype)
        return find_minibatch_size(lambda number: detector.score([blank] * number), self._smallest_minibatch)

    def _loaded_on_device(self, files: dict[str, bytes]) -> Detector:
        """A detector that reproduces its golden scores, compiled if it then does, too."""
        try:
            return self._run(self._load_and_check, files, compiled=True)
        except (NotCompiled, InvalidBundle) as error:
            loaded = self._run(self._load_and_check, files, compiled=False)
            log.warning("a model version runs without being compiled: %s", error)
            return loaded

    def _load_and_check(self, files: dict[str, bytes], *, compiled: bool) -> Detector:
        detector = load_detector(files, device=self._device.name, max_pixels=self._max_pixels)
        if compiled:
            detector.compile()
        check_golden(detector, files)
        return detector

    def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function on the device. Raises WorkerUnfit instead of RuntimeError if the device is at fault."""
        try:
            return self._device.run(function, *args, **kwargs)
        except RuntimeError:
            try:
                self._device.check()
            except RuntimeError as fault:
                if not is_out_of_memory(fault):
                    raise WorkerUnfit(f"the device does not work: {describe(fault)}") from fault
            raise

    def _version(self, version_id: int) -> ModelVersion:
        with self._engine.begin() as connection:
            return model_versions.by_id(connection, version_id)

    def _files(self, version: ModelVersion) -> dict[str, bytes]:
        with self._store.local_file(bundle_key(version.sha256)) as path, path.open("rb") as tar:
            files = unpack(tar, max_bytes=self._max_bytes)
        if digest(files[MANIFEST]) != version.sha256.hex():
            raise InvalidBundle("the stored bundle is not the one that was registered")
        return files
