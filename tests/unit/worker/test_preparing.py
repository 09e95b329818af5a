"""Images of a minibatch: a slow or faulty one delays no other, and each ends with an image or a code."""

import datetime as dt
import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from core.errors import Failure
from core.queue.claiming import Claim
from core.settings import Settings
from core.storage.image_store import Store, image_key
from core.vision.input.preprocessing import PreparedImage, Preprocessing, SizedImage, prepare
from tests.fixtures.part_images import png
from worker.pipeline import preparing
from worker.pipeline.loaded_models import LoadedModel
from worker.pipeline.preparing import ClaimedImage, ImagePreparer

TODAY = dt.date(2026, 1, 2)
SQUARE = Preprocessing(width=32, height=32, scaled_decode=False)


class DecodingModel:
    """A model whose decoding can be made slow or faulty for some images."""

    preprocessing = SQUARE
    inputs = None

    def __init__(self, disturb: Callable[[bytes], None]) -> None:
        self._disturb = disturb

    def prepare(self, data: bytes) -> SizedImage:
        self._disturb(data)
        return prepare(data, SQUARE, max_pixels=1_000_000)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path.as_uri())


@pytest.fixture
def preparer(store: Store, tmp_path: Path) -> Iterator[ImagePreparer]:
    settings = Settings(store_url=tmp_path.as_uri(), decode_threads=2)
    preparer = ImagePreparer(settings, store)
    yield preparer
    preparer.close()


def claim(store: Store, number: int, *, rescues: int = 0, data: bytes | None = None) -> Claim:
    """A claim on a stored image."""
    data = png(number) if data is None else data
    sha256 = hashlib.sha256(data).digest()
    store.put(image_key(TODAY, sha256), data)
    return Claim(UUID(int=number), 1, 1, 0.5, None, TODAY, sha256, rescues, 0.0, False)


def groups(preparer: ImagePreparer, claims: list[Claim], disturb: Callable[[bytes], None]) -> list[list[ClaimedImage]]:
    model: Any = DecodingModel(disturb)
    return list(preparer.groups(model, claims))


def numbers(group: list[ClaimedImage]) -> list[int]:
    return [claimed.claim.id.int for claimed in group]


def undisturbed(data: bytes) -> None:
    return


def test_a_minibatch_is_one_group_in_order(preparer: ImagePreparer, store: Store) -> None:
    [group] = groups(preparer, [claim(store, number) for number in range(8)], undisturbed)
    assert numbers(group) == list(range(8))
    assert all(claimed.image is not None for claimed in group)


def test_fast_images_do_not_wait_for_slow_ones(
    preparer: ImagePreparer, store: Store, monkeypatch: pytest.MonkeyPatch
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
    preparer: ImagePreparer, store: Store, monkeypatch: pytest.MonkeyPatch
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
    preparer: ImagePreparer, store: Store, raised: Exception
) -> None:
    faulty = png(1)

    def disturb(data: bytes) -> None:
        if data == faulty:
            raise raised

    first, [isolated] = groups(preparer, [claim(store, number) for number in range(3)], disturb)
    assert numbers(first) == [0, 2]
    assert isolated.image is not None


def test_every_failure_ends_with_a_code(preparer: ImagePreparer, store: Store) -> None:
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


class _Device:
    """Scores images by their mean; a minibatch with an all-white image raises an exception."""

    def __init__(self, *, broken: bool = False, largest: int = 100) -> None:
        self.broken = broken
        self.largest = largest

    def score(self, detector: object, images: list[PreparedImage]) -> Any:
        if self.broken or len(images) > self.largest or any(image.min() == 255 for image in images):
            raise RuntimeError("cannot be scored")
        return type("Scored", (), {"scores": np.array([float(image.mean()) for image in images])})


def filled(value: int) -> PreparedImage:
    return np.full((4, 4, 3), value, dtype=np.uint8)


def test_an_image_that_the_model_cannot_score_does_not_stop_the_others() -> None:
    device: Any = _Device()
    model = LoadedModel(Any, None, device)  # type: ignore[arg-type]
    assert model.score_each([filled(value) for value in (1, 255, 3, 4, 5)]) == [1.0, None, 3.0, 4.0, 5.0]
    assert model.score_each([]) == []


def test_a_minibatch_that_does_not_fit_is_halved() -> None:
    device: Any = _Device(largest=2)
    model = LoadedModel(Any, None, device)  # type: ignore[arg-type]
    assert model.score_each([filled(value) for value in range(9)]) == [float(value) for value in range(9)]


def test_a_broken_device_is_not_a_fault_of_an_image() -> None:
    device: Any = _Device(broken=True)
    model = LoadedModel(Any, None, device)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError):
        model.score_each([filled(1), filled(2)])
