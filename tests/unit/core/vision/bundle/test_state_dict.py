"""An imported state dict gives the same verdicts as the synchronous demo, and scores within 1e-3."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import Compose, Resize, ToTensor

from core.vision.bundle.folder import read_folder
from core.vision.bundle.golden import check_golden
from core.vision.bundle.loading import load_detector
from core.vision.bundle.state_dict import InvalidStateDict, import_state_dict
from core.vision.input.preprocessing import prepare
from core.vision.input.record import PILLOW


class Demo(nn.Module):
    """The network of the synchronous demo, reimplemented from its description."""

    def __init__(self) -> None:
        super().__init__()

        def down(before: int, after: int) -> list[nn.Module]:
            return [nn.Conv2d(before, after, kernel_size=3, padding=1), nn.ReLU(True), nn.MaxPool2d(2, 2)]

        def up(before: int, after: int, last: nn.Module) -> list[nn.Module]:
            bilinear = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
            return [bilinear, nn.Conv2d(before, after, kernel_size=3, padding=1), last]

        self.encoder = nn.Sequential(*down(3, 32), *down(32, 64), *down(64, 128))
        self.decoder = nn.Sequential(*up(128, 64, nn.ReLU(True)), *up(64, 32, nn.ReLU(True)), *up(32, 3, nn.Sigmoid()))

    def predict(self, data: bytes) -> float:
        tensor = Compose([Resize((128, 128)), ToTensor()])(Image.open(io.BytesIO(data)).convert("RGB")).unsqueeze(0)
        with torch.no_grad():
            return float(torch.mean((tensor - self.decoder(self.encoder(tensor))) ** 2))


@pytest.fixture(scope="module")
def demo() -> Demo:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return Demo().eval()


def save_model(folder: Path, content: Any) -> Path:
    path = folder / "model.pth"
    torch.save(content, path)
    return path


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_scores_and_verdicts_equal_those_of_the_demo(
    part: Callable[..., bytes], demo: Demo, tmp_path: Path, kind: str, prefix: str
) -> None:
    images = []
    for seed in range(12):
        file = io.BytesIO()
        side = 60 + 31 * seed
        Image.open(io.BytesIO(part(seed, side=side, defective=seed % 2 == 0))).save(file, format=kind)
        images.append(file.getvalue())
    expected = np.array([demo.predict(image) for image in images])
    threshold = float(np.median(expected))
    weights = {prefix + name: weight for name, weight in demo.state_dict().items()}
    manifest = import_state_dict(save_model(tmp_path, weights), tmp_path / "bundle", threshold=threshold)
    assert manifest.threshold.value == threshold
    assert manifest.threshold.calibration is None
    files = read_folder(tmp_path / "bundle")
    detector = load_detector(files, device="cpu", max_pixels=10**7)
    check_golden(detector, files)
    resized_by_pillow = detector.preprocessing.model_copy(update={"resize": PILLOW})
    exact = detector.score([prepare(image, resized_by_pillow, max_pixels=10**7).pixels for image in images]).scores
    assert np.abs(exact / expected - 1).max() < 1e-5  # with the same decoder; with others, up to 1e-3
    scores = detector.score([detector.prepare(image) for image in images]).scores
    assert np.abs(scores / expected - 1).max() < 5e-5  # torch's resize differs by a level here and there
    clear = np.abs(expected / threshold - 1) > 5e-5
    assert np.array_equal((scores >= threshold)[clear], (expected >= threshold)[clear])
    assert clear.sum() >= 10


def test_the_same_file_gives_the_same_bundle(demo: Demo, tmp_path: Path) -> None:
    path = save_model(tmp_path, demo.state_dict())
    first, second = (import_state_dict(path, tmp_path / name, threshold=0.002) for name in ("first", "second"))
    assert first == second
    with pytest.raises(FileExistsError):
        import_state_dict(path, tmp_path / "first", threshold=0.002)


def test_other_input_sizes_are_imported(demo: Demo, tmp_path: Path) -> None:
    path = save_model(tmp_path, demo.state_dict())
    manifest = import_state_dict(path, tmp_path / "bundle", threshold=0.002, input_size=64)
    assert (manifest.preprocessing.width, manifest.preprocessing.scaled_decode) == (64, False)
    with pytest.raises(InvalidStateDict, match="multiples of 8"):
        import_state_dict(path, tmp_path / "other", threshold=0.002, input_size=100)


class Harmful:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch harm",)


def without(weights: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: weight for key, weight in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w: without(w, "encoder.3.bias"), "lacks 'encoder.3.bias'"),
        (lambda w: {**w, "extra": torch.zeros(1)}, "unexpected 'extra'"),
        (lambda w: {**w, "decoder.7.bias": torch.zeros(4)}, r"shape \(4,\), not \(3,\)"),
        (lambda w: {**w, "encoder.0.bias": torch.full((32,), float("nan"))}, "not finite"),
        (lambda w: {**w, "encoder.0.bias": torch.zeros(32, dtype=torch.int64)}, "floating-point"),
        (lambda w: {"state_dict": w, "epoch": 3}, "checkpoint"),
        (lambda w: {}, "no state dict"),
        (lambda w: [1, 2], "no state dict"),
        (lambda w: {**w, "harm": Harmful()}, "weights alone"),
        (lambda w: {1: torch.zeros(1)}, "no state dict"),
    ],
)
def test_anything_but_a_plain_state_dict_is_refused(
    demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = save_model(tmp_path, change(dict(demo.state_dict())))
    with pytest.raises(InvalidStateDict, match=reason) as invalid:
        import_state_dict(path, tmp_path / "bundle", threshold=0.002)
    assert "\n" not in str(invalid.value)
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04rubbish", b"\x80\x02rubbish", bytes(5000)])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(InvalidStateDict):
        import_state_dict(path, tmp_path / "bundle", threshold=0.002)


def test_half_precision_weights_are_imported(demo: Demo, tmp_path: Path) -> None:
    path = save_model(tmp_path, {name: weight.to(torch.float16) for name, weight in demo.state_dict().items()})
    import_state_dict(path, tmp_path / "bundle", threshold=0.002)
    files = read_folder(tmp_path / "bundle")
    check_golden(load_detector(files, device="cpu", max_pixels=10**6), files)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf")])
def test_a_threshold_must_be_finite(tmp_path: Path, threshold: float) -> None:
    with pytest.raises(InvalidStateDict, match="finite"):
        import_state_dict(tmp_path / "none.pth", tmp_path / "bundle", threshold=threshold)
