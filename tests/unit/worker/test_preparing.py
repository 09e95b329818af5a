"""Images of a minibatch: a slow or faulty one delays no other, and each ends with an image or a code."""

import datetime as dt
import errno
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from core.errors import Failure
from core.intake.image_decoding import Undecodable
from core.queue.claiming import Claim
from core.settings import Settings
from core.storage.folder_store import FolderStore
from core.storage.image_store import image_key
from core.vision.input.input_checks import ImageMeasurements, measure_image
from core.vision.input.prepared_image import PreparedImage, SizedImage
from core.vision.input.preprocessing import prepare
from core.vision.input.record import Preprocessing
from tests.fixtures.part_images import png
from worker.pipeline import decode_threads, image_loading, preparing
from worker.pipeline.faults import WorkerUnfit
from worker.pipeline.isolated_decoding import Unfinished
from worker.pipeline.loaded_models import LoadedModel
from worker.pipeline.preparing import ClaimedImage, ImagePreparer

TODAY = dt.date(2026, 1, 2)
LABEL = ("ring", "1")
SQUARE = Preprocessing(width=32, height=32, scaled_decode=False)


class DecodingModel:
    """A model whose decoding can be made slow or faulty for some images."""

    preprocessing = SQUARE

    def __init__(self, disturb: Callable[[bytes], object], inputs: object = None) -> None:
        self._disturb = disturb
        self.inputs = inputs

    def prepare(self, data: bytes) -> SizedImage:
        self._disturb(data)
        return prepare(data, SQUARE, max_pixels=1_000_000)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path.as_uri())


@pytest.fixture
def preparer(store: FolderStore, tmp_path: Path) -> Iterator[ImagePreparer]:
    settings = Settings(store_url=tmp_path.as_uri(), decode_threads=2)
    preparer = ImagePreparer(settings, store)
    yield preparer
    preparer.close()


def claim(store: FolderStore, number: int, *, rescues: int = 0, data: bytes | None = None) -> Claim:
    """A claim on a stored image."""
    data = png(number) if data is None else data
    sha256 = hashlib.sha256(data).digest()
    store.put(image_key(TODAY, sha256), data)
    return Claim(UUID(int=number), 1, 1, 0.5, None, TODAY, sha256, rescues, 0.0, False)


def groups(
    preparer: ImagePreparer, claims: list[Claim], disturb: Callable[[bytes], object]
) -> list[list[ClaimedImage]]:
    model: Any = DecodingModel(disturb)
    return list(preparer.groups(model, claims))


def numbers(group: list[ClaimedImage]) -> list[int]:
    return [claimed.claim.id.int for claimed in group]


def undisturbed(data: bytes) -> None:
    return


def test_a_minibatch_is_one_group_in_order(preparer: ImagePreparer, store: FolderStore) -> None:
    [group] = groups(preparer, [claim(store, number) for number in range(8)], undisturbed)
    assert numbers(group) == list(range(8))
    assert all(claimed.image is not None for claimed in group)


def test_fast_images_do_not_wait_for_slow_ones(
    preparer: ImagePreparer, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "SLOW_SECONDS", 0.3)
    slow = {png(0), png(1)}  # as many as there are threads
    released = threading.Event()

    def disturb(data: bytes) -> None:
        if data in slow:
            assert released.wait(60)

    model: Any = DecodingModel(disturb)
    prepared_groups = preparer.groups(model, [claim(store, number) for number in range(6)])
    first = next(prepared_groups)
    while len(first) < 4:
        first += next(prepared_groups)
    assert sorted(numbers(first)) == [2, 3, 4, 5]
    released.set()
    assert sorted(number for group in prepared_groups for number in numbers(group)) == [0, 1]


def test_an_image_that_takes_too_long_is_decoded_in_a_child_process(
    preparer: ImagePreparer, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "SLOW_SECONDS", 0.2)
    monkeypatch.setattr(preparing, "GIVE_UP_SECONDS", 0.5)
    ended = threading.Event()
    stuck = png(3)

    def disturb(data: bytes) -> None:
        if data == stuck:
            ended.wait(60)

    first, *other_groups = groups(preparer, [claim(store, number) for number in range(4)], disturb)
    ended.set()
    assert numbers(first) == [0, 1, 2]
    [[isolated]] = other_groups
    assert isolated.claim.id.int == 3
    assert isolated.image is not None
    np.testing.assert_array_equal(isolated.image, prepare(stuck, SQUARE, max_pixels=1_000_000).pixels)


@pytest.mark.parametrize("raised", [RuntimeError("resize"), MemoryError(), KeyError("x")])
def test_after_an_unexpected_exception_decoding_is_retried_in_a_child_process(
    preparer: ImagePreparer, store: FolderStore, raised: Exception
) -> None:
    faulty = png(1)

    def disturb(data: bytes) -> None:
        if data == faulty:
            raise raised

    first, [isolated] = groups(preparer, [claim(store, number) for number in range(3)], disturb)
    assert numbers(first) == [0, 2]
    assert isolated.image is not None


def test_every_failure_ends_with_a_code(preparer: ImagePreparer, store: FolderStore) -> None:
    missing = claim(store, 1)
    store.path(image_key(TODAY, missing.image_sha256)).unlink()
    broken = claim(store, 2, data=png(2)[:100])
    changed = claim(store, 3)
    store.path(image_key(TODAY, changed.image_sha256)).write_bytes(png(4))
    suspect = claim(store, 5, rescues=1, data=png(5)[:90])
    outcomes = [
        claimed for group in groups(preparer, [missing, broken, changed, suspect], undisturbed) for claimed in group
    ]
    failures = {claimed.claim.id.int: claimed.failure.failure for claimed in outcomes if claimed.failure}
    assert failures == {
        1: Failure.IMAGE_CHECKSUM_MISMATCH,
        2: Failure.IMAGE_UNDECODABLE,
        3: Failure.IMAGE_CHECKSUM_MISMATCH,
        5: Failure.IMAGE_UNDECODABLE,
    }


def test_an_unreadable_image_fails_alone(preparer: ImagePreparer, store: FolderStore) -> None:
    unreadable = claim(store, 1)
    path = store.path(image_key(TODAY, unreadable.image_sha256))
    path.unlink()
    path.mkdir()  # reading it raises OSError, but not FileNotFoundError
    [group] = groups(preparer, [claim(store, 0), unreadable, claim(store, 2)], undisturbed)
    assert [claimed.image is None for claimed in group] == [False, True, False]
    assert group[1].failure is not None
    assert group[1].failure.failure is Failure.IMAGE_CHECKSUM_MISMATCH
    assert "cannot be read" in group[1].failure.detail


def failing_reads(store: FolderStore, monkeypatch: pytest.MonkeyPatch, *, number: int) -> None:
    """Let the first `number` reads of the store raise EIO."""
    read, failures = store.read, [OSError(errno.EIO, "Input/output error")] * number

    def read_or_fail(key: str) -> bytes:
        if failures:
            raise failures.pop()
        return read(key)

    monkeypatch.setattr(store, "read", read_or_fail)


def test_no_image_fails_while_the_store_is_unavailable(
    preparer: ImagePreparer, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    failing_reads(store, monkeypatch, number=99)
    monkeypatch.setattr(store, "check", fail)
    for rescues in (0, 1):
        with pytest.raises(OSError, match="Read-only"):
            groups(preparer, [claim(store, 1, rescues=rescues)], undisturbed)


def test_an_image_is_read_again_once_the_store_is_available(
    preparer: ImagePreparer, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_reads(store, monkeypatch, number=1)
    [[claimed]] = groups(preparer, [claim(store, 1)], undisturbed)
    assert claimed.image is not None


@pytest.mark.parametrize("rescues", [0, 1])
def test_an_image_that_cannot_be_measured_fails_alone(
    preparer: ImagePreparer, store: FolderStore, monkeypatch: pytest.MonkeyPatch, rescues: int
) -> None:
    faulty = prepare(png(1), SQUARE, max_pixels=1_000_000).pixels

    def measure(image: SizedImage) -> ImageMeasurements:
        if np.array_equal(image.pixels, faulty):
            raise ValueError("no edges")
        return measure_image(image)

    monkeypatch.setattr(image_loading, "measure_image", measure)
    monkeypatch.setattr(image_loading, "failed_checks", lambda *_: ["input_dark"])
    model: Any = DecodingModel(undisturbed, inputs="some")
    claims = [claim(store, number, rescues=rescues) for number in range(3)]
    claimed = {image.claim.id.int: image for group in preparer.groups(model, claims) for image in group}
    assert [claimed[number].reasons for number in range(3)] == [["input_dark"], [], ["input_dark"]]
    failure = claimed[1].failure
    assert failure is not None
    assert (failure.failure, failure.detail) == (
        Failure.IMAGE_UNDECODABLE,
        "the image cannot be prepared: ValueError: no edges",
    )


class _SlowDecoder:
    """In place of the child process: one image is not finished within the short limit."""

    def __init__(self, slow: Path, calls: list[str]) -> None:
        self._slow = slow
        self._calls = calls

    def __call__(self, *_: object, **__: object) -> "_SlowDecoder":
        return self

    def __enter__(self) -> "_SlowDecoder":
        return self

    def __exit__(self, *_: object) -> None:
        return

    def prepare_quickly(self, path: Path) -> SizedImage:
        self._calls.append("quickly")
        if path == self._slow:
            raise Unfinished
        return prepare(path.read_bytes(), SQUARE, max_pixels=1_000_000)

    def prepare(self, path: Path) -> SizedImage:
        self._calls.append("slowly")
        return prepare(path.read_bytes(), SQUARE, max_pixels=1_000_000)


def test_rescued_images_do_not_wait_for_a_slow_neighbour(
    preparer: ImagePreparer, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = [claim(store, number, rescues=1) for number in range(3)]
    calls: list[str] = []
    slow = store.path(image_key(TODAY, claims[0].image_sha256))
    monkeypatch.setattr(preparing, "IsolatedDecoder", _SlowDecoder(slow, calls))
    model: Any = DecodingModel(undisturbed)
    prepared = preparer.groups(model, claims)
    assert numbers(next(prepared)) == [1, 2]
    assert calls == ["quickly"] * 3
    [last] = prepared
    assert (numbers(last), calls[3:]) == ([0], ["slowly"])
    assert last[0].image is not None


def test_too_many_stuck_threads_make_a_worker_unfit(
    preparer: ImagePreparer, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "SLOW_SECONDS", 0.2)
    monkeypatch.setattr(preparing, "GIVE_UP_SECONDS", 0.3)
    monkeypatch.setattr(decode_threads, "MAX_STUCK", 1)
    ended = threading.Event()
    for number in range(2):
        preparer.require_few_stuck()
        [[claimed]] = groups(preparer, [claim(store, number)], lambda _: ended.wait(60))
        assert claimed.image is not None
    with pytest.raises(WorkerUnfit, match="2 threads are stuck"):
        preparer.require_few_stuck()
    ended.set()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            return preparer.require_few_stuck()
        except WorkerUnfit:
            time.sleep(0.05)
    raise AssertionError("the threads have ended, but the worker stays unfit")


class _Device:
    """Scores images by their mean; a minibatch with an all-white image raises an exception."""

    def __init__(self, *, broken: bool = False, largest: int = 100, error: Exception | None = None) -> None:
        self.broken = broken
        self.largest = largest
        self.error = error or RuntimeError("cannot be scored")

    def score(self, detector: object, images: list[PreparedImage]) -> Any:
        if self.broken or len(images) > self.largest or any(image.min() == 255 for image in images):
            raise self.error
        fields = {"scores": np.array([float(image.mean()) for image in images]), "maps": np.zeros((len(images), 2, 2))}
        return type("Scored", (), fields)


def filled(value: int) -> PreparedImage:
    return np.full((4, 4, 3), value, dtype=np.uint8)


@pytest.mark.parametrize("error", [RuntimeError("shape"), ValueError("shape"), KeyError("shape")])
def test_an_image_that_the_model_cannot_score_does_not_stop_the_others(error: Exception) -> None:
    device: Any = _Device(error=error)
    model = LoadedModel(Any, None, device, 32, LABEL)  # type: ignore[arg-type]
    assert model.score_each([filled(value) for value in (1, 255, 3, 4, 5)]) == [1.0, None, 3.0, 4.0, 5.0]
    assert model.score_each([]) == []


def test_a_minibatch_that_does_not_fit_is_halved() -> None:
    device: Any = _Device(largest=2)
    model = LoadedModel(Any, None, device, 32, LABEL)  # type: ignore[arg-type]
    assert model.score_each([filled(value) for value in range(9)]) == [float(value) for value in range(9)]


def test_an_image_without_an_anomaly_map_is_at_fault() -> None:
    device: Any = _Device()
    model = LoadedModel(Any, None, device, 32, LABEL)  # type: ignore[arg-type]
    assert model.anomaly_map(filled(1)).shape == (2, 2)
    with pytest.raises(Undecodable) as poison:
        model.anomaly_map(filled(255))
    assert poison.value.failure is Failure.POISON


def test_a_broken_device_makes_a_worker_unfit() -> None:
    device: Any = _Device(broken=True, error=RuntimeError("CUDA error: an illegal memory access\nMore lines"))
    model = LoadedModel(Any, None, device, 32, LABEL)  # type: ignore[arg-type]
    for score in (lambda: model.score_each([filled(1), filled(2)]), lambda: model.anomaly_map(filled(1))):
        with pytest.raises(WorkerUnfit) as unfit:
            score()
        assert "illegal memory access" in str(unfit.value)
        assert "More lines" not in str(unfit.value)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUDA error: out of memory"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")]
)
def test_a_worker_without_memory_is_not_unfit(error: Exception) -> None:
    device: Any = _Device(broken=True, error=error)
    model = LoadedModel(Any, None, device, 32, LABEL)  # type: ignore[arg-type]
    with pytest.raises(type(error)) as raised:
        model.score_each([filled(1), filled(2)])
    assert raised.value is error
