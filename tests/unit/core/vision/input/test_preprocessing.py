"""Preprocessing gives exactly the demo's pixels, and a reduced decode stays close to a full one."""

import hashlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from torchvision.transforms import Compose, Resize, ToTensor

from core.vision.detectors.autoencoder import to_input_tensor
from core.vision.input.preprocessing import prepare
from core.vision.input.record import PILLOW, Preprocessing, ResizeMethod, Upright

UPRIGHT = Upright(length=0.5, width=0.2, size=0.25, axis="area", lopsided=True, inside=True, shadow=False)


def smooth_jpeg(width: int, height: int) -> bytes:
    rows, columns = np.mgrid[0:height, 0:width]
    image = 128 + 60 * np.sin(rows / 37)[..., None] * np.cos(columns / 23)[..., None] * np.array([1, 0.7, 0.4])
    file = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(file, format="JPEG", quality=92)
    return file.getvalue()


def test_old_preparing_equals_torchvisions_resize_and_to_tensor() -> None:
    data = smooth_jpeg(300, 220)
    old = Preprocessing(width=128, height=128, resize=PILLOW, scaled_decode=False)
    prepared = prepare(data, old, max_pixels=10**6).pixels
    assert prepared.shape == (128, 128, 3)
    assert prepared.dtype == np.uint8
    expected = Compose([Resize((128, 128)), ToTensor()])(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(to_input_tensor([prepared], "cpu")[0].numpy(), expected.numpy())


@pytest.mark.parametrize("size", [(128, 128), (64, 200), (8, 8)])
@pytest.mark.parametrize("resize", ["bilinear-antialias", "bilinear-antialias-torch"])
def test_without_a_pose_the_whole_image_is_resized(size: tuple[int, int], resize: ResizeMethod) -> None:
    data = smooth_jpeg(300, 220)
    preprocessing = Preprocessing(width=size[0], height=size[1], resize=resize, scaled_decode=False)
    prepared = prepare(data, preprocessing, max_pixels=10**6)
    resized = Image.open(io.BytesIO(data)).convert("RGB").resize(size, Image.Resampling.BILINEAR)
    difference = np.abs(prepared.pixels.astype(int) - np.asarray(resized).astype(int))
    assert difference.max() <= (0 if resize == PILLOW else 1)
    assert prepared.pixels.flags.c_contiguous
    assert prepared.placed is None
    assert prepared.reasons == ()
    assert preprocessing.pose == "as-is"


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "BMP", "TIFF", "WEBP"]),
    mode=st.sampled_from(["RGB", "L", "RGBA", "P", "1", "CMYK"]),
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    orientation=st.integers(1, 8),
    subsampling=st.sampled_from([0, 1, 2]),
    progressive=st.booleans(),
    seed=st.integers(0, 9),
)
def test_both_resizes_agree_within_a_level_on_every_kind_of_image(
    kind: str, mode: str, size: tuple[int, int], orientation: int, subsampling: int, progressive: bool, seed: int
) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image, file, exif = Image.fromarray(noise).convert(mode), io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    try:
        image.save(file, kind, exif=exif, subsampling=subsampling, progressive=progressive)
    except OSError:  # this format does not have this mode
        image.convert("RGB").save(file, kind, exif=exif)
    new, old = (
        prepare(file.getvalue(), Preprocessing(width=40, height=32, resize=how, scaled_decode=False), max_pixels=10**6)
        for how in ("bilinear-antialias-torch", "bilinear-antialias")
    )
    assert (new.width, new.height) == (old.width, old.height)
    assert np.abs(new.pixels.astype(int) - old.pixels.astype(int)).max() <= 1


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
    preprocessing = Preprocessing(width=128, height=96, resize=PILLOW, scaled_decode=True)
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
