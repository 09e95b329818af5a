"""Preprocessing gives exactly the demo's pixels, and a reduced decode stays close to a full one."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from torchvision.transforms import Compose, Resize, ToTensor

from core.vision.detectors.autoencoder import to_input_tensor
from core.vision.input.preprocessing import prepare
from core.vision.input.record import Preprocessing, Upright

UPRIGHT = Upright(length=0.5, width=0.2, size=0.25, axis="area", lopsided=True, inside=True, shadow=False)


def smooth_jpeg(width: int, height: int) -> bytes:
    rows, columns = np.mgrid[0:height, 0:width]
    image = 128 + 60 * np.sin(rows / 37)[..., None] * np.cos(columns / 23)[..., None] * np.array([1, 0.7, 0.4])
    file = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(file, format="JPEG", quality=92)
    return file.getvalue()


def test_preparing_equals_torchvisions_resize_and_to_tensor() -> None:
    data = smooth_jpeg(300, 220)
    prepared = prepare(data, Preprocessing(width=128, height=128, scaled_decode=False), max_pixels=10**6).pixels
    assert prepared.shape == (128, 128, 3)
    assert prepared.dtype == np.uint8
    expected = Compose([Resize((128, 128)), ToTensor()])(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(to_input_tensor([prepared], "cpu")[0].numpy(), expected.numpy())


@pytest.mark.parametrize("size", [(128, 128), (64, 200), (8, 8)])
def test_without_a_pose_the_whole_image_is_resized_by_pillow(size: tuple[int, int]) -> None:
    data = smooth_jpeg(300, 220)
    preprocessing = Preprocessing(width=size[0], height=size[1], scaled_decode=False)
    prepared = prepare(data, preprocessing, max_pixels=10**6)
    resized = Image.open(io.BytesIO(data)).convert("RGB").resize(size, Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(prepared.pixels, np.asarray(resized))
    assert prepared.placed is None
    assert prepared.reasons == ()
    assert preprocessing.pose == "as-is"


def test_a_reduced_decode_stays_close_to_a_full_one() -> None:
    data = smooth_jpeg(1200, 900)
    whole, reduced = (
        prepare(data, Preprocessing(width=128, height=128, scaled_decode=scaled), max_pixels=10**7).pixels.astype(int)
        for scaled in (False, True)
    )
    assert np.abs(whole - reduced).mean() < 1
    assert not np.array_equal(whole, reduced)  # otherwise this test would be meaningless


@pytest.mark.parametrize("scaled", [False, True])
def test_a_prepared_image_has_its_original_size_as_displayed(scaled: bool) -> None:
    rotated = Image.Exif()
    rotated[0x0112] = 6  # rotated by 90°
    file = io.BytesIO()
    Image.open(io.BytesIO(smooth_jpeg(1200, 900))).save(file, format="JPEG", exif=rotated)
    prepared = prepare(file.getvalue(), Preprocessing(width=64, height=64, scaled_decode=scaled), max_pixels=10**7)
    assert (prepared.width, prepared.height) == (900, 1200)
    assert prepared.pixels.shape == (64, 64, 3)


def test_the_digest_differs_with_every_parameter() -> None:
    preprocessing = Preprocessing(width=128, height=128, scaled_decode=True)
    assert preprocessing.digest == Preprocessing(width=128, height=128, scaled_decode=True).digest
    assert preprocessing.digest != Preprocessing(width=128, height=128, scaled_decode=False).digest
    assert preprocessing.digest != Preprocessing(width=128, height=136, scaled_decode=True).digest
    upright = preprocessing.model_copy(update={"upright": UPRIGHT})
    assert upright.pose == "upright"
    wider = upright.model_copy(update={"upright": UPRIGHT.model_copy(update={"width": 0.25})})
    assert len({preprocessing.digest, upright.digest, wider.digest}) == 3


def test_the_digest_of_a_bundle_from_before_the_poses_is_unchanged() -> None:
    formula = b"height=96,resize=bilinear-antialias,scaled_decode=True,width=128"
    preprocessing = Preprocessing(width=128, height=96, scaled_decode=True)
    assert preprocessing.digest == hashlib.sha256(formula).hexdigest()
    recorded = preprocessing.model_dump(mode="json", exclude={"upright", "bit_depth"})
    assert Preprocessing.model_validate(recorded).digest == preprocessing.digest


def test_a_pose_is_recorded_without_loss() -> None:
    preprocessing = Preprocessing(width=128, height=96, scaled_decode=True, upright=UPRIGHT)
    again = Preprocessing.model_validate_json(preprocessing.model_dump_json())
    assert again == preprocessing
    assert again.digest == preprocessing.digest


@pytest.mark.parametrize("field", [{"length": 0.0}, {"width": -1.0}, {"size": float("inf")}, {"axis": "other"}])
def test_an_impossible_pose_is_refused(field: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Upright.model_validate({**UPRIGHT.model_dump(), **field})


@pytest.mark.parametrize("side", [0, -1, 5000, "128", 128.0, True])
def test_invalid_sizes_are_refused(side: object) -> None:
    with pytest.raises(ValidationError):
        Preprocessing.model_validate({"width": side, "height": 128, "scaled_decode": True})
