"""Training on parts in any pose: the version records how to bring them upright, and its maps lie on the images."""

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.vision.bundle.folder import read_folder
from core.vision.bundle.golden import check_golden
from core.vision.bundle.loading import load_detector
from core.vision.bundle.manifest import Manifest
from core.vision.detectors.detector import Detector
from core.vision.evaluation.diagnosis import diagnose, draw_sheet
from core.vision.input.map_placement import place_map
from core.vision.input.preprocessing import prepare
from core.vision.input.upright import POSE
from core.vision.train import TrainingOptions, train
from core.vision.training_options import InvalidOptions
from tests.fixtures.html_pages import Page
from tests.fixtures.part_images import encoded
from tests.fixtures.posed_parts import Placement, draw_part, encoded_part, random_placement, wedge, write_posed_folder

DEFECT = (-0.5, 0.0)
OPTIONS = TrainingOptions(architecture="feature-gaussian", input_size=64, device="cpu")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 good parts in any pose, six good and six defective ones to test, with masks; one image shows no part."""
    root = write_posed_folder(tmp_path_factory.mktemp("posed"), good=30, tested=6)
    masks = root / "ground_truth" / "spot"
    masks.mkdir(parents=True)
    for path in (root / "test" / "spot").iterdir():
        x, y = random_placement(int(path.stem)).to_image(*DEFECT)
        rows, columns = np.mgrid[0:200, 0:240] + 0.5
        Image.fromarray((np.hypot(columns - x, rows - y) < 5).astype(np.uint8) * 255).save(masks / path.name)
    (root / "train" / "good" / "empty.png").write_bytes(encoded(Image.new("RGB", (240, 200), (200, 201, 199))))
    return root


@pytest.fixture(scope="module")
def trained(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest, list[str]]:
    """The bundle's folder, with its report beside it, its manifest, and the notes of the training."""
    out = tmp_path_factory.mktemp("bundles") / "posed"
    notes: list[str] = []
    manifest = train(
        parts,
        out,
        OPTIONS,
        lambda progress: notes.extend([progress.note] if progress.note else []),
        report=out.with_suffix(".html"),
    )
    return out, manifest, notes


@pytest.fixture(scope="module")
def detector(trained: tuple[Path, Manifest, list[str]]) -> Detector:
    return load_detector(read_folder(trained[0]), device="cpu", max_pixels=10**6)


def test_the_version_records_how_the_parts_are_brought_upright(trained: tuple[Path, Manifest, list[str]]) -> None:
    _, manifest, notes = trained
    preprocessing = manifest.preprocessing
    assert preprocessing.pose == "upright"
    assert preprocessing.upright is not None
    assert preprocessing.upright.axis == "area"
    assert preprocessing.upright.lopsided
    assert preprocessing.width > 2 * preprocessing.height  # the shape of the part, not of the image
    assert any(note.startswith("the parts lie in different poses: their turns have a standard") for note in notes)
    [about_empty] = [note for note in notes if "cannot be brought" in note]
    assert about_empty.startswith("1 of 31 images cannot be brought into the pose of good parts")
    assert "empty.png: a worker gives such images the verdict review" in about_empty


def test_the_bundle_reproduces_its_golden_scores(trained: tuple[Path, Manifest, list[str]], detector: Detector) -> None:
    check_golden(detector, read_folder(trained[0]))


def test_defects_are_found_in_any_pose_and_located_on_the_images_as_sent(
    trained: tuple[Path, Manifest, list[str]],
) -> None:
    metrics = trained[1].metrics
    assert metrics is not None
    assert metrics.auroc == 1
    assert metrics.pixel_auroc is not None
    assert metrics.aupro is not None
    assert metrics.pixel_auroc > 0.95
    assert metrics.aupro > 0.8


@pytest.mark.parametrize("seed", [200, 201, 202, 203])
def test_the_peak_of_the_map_is_on_the_defect(detector: Detector, seed: int) -> None:
    prepared = prepare(encoded_part(wedge, seed, defect=DEFECT), detector.preprocessing, max_pixels=10**6)
    assert prepared.reasons == ()
    placed = place_map(detector.score([prepared.pixels]).maps[0], prepared)
    row, column = np.unravel_index(placed.argmax(), placed.shape)
    peak = (column + 0.5) / placed.shape[1] * 240, (row + 0.5) / placed.shape[0] * 200
    assert np.hypot(*np.subtract(peak, random_placement(seed).to_image(*DEFECT))) < 20  # the part is 120 pixels long


def test_the_heatmap_of_a_diagnosis_is_drawn_on_the_image_as_sent(
    trained: tuple[Path, Manifest, list[str]], detector: Detector
) -> None:
    manifest = trained[1]
    placement = Placement(100, 0.45, 0.5)
    data = encoded(draw_part(wedge, placement, defect=DEFECT))
    diagnosis = diagnose(
        detector, data, threshold=manifest.threshold.value, review_threshold=None, inputs=manifest.inputs
    )
    assert (diagnosis.verdict, diagnosis.reasons) == ("ng", [])
    assert diagnosis.overlay.size == (240, 200)
    drawn = np.asarray(diagnosis.overlay).astype(int) - np.asarray(Image.open(io.BytesIO(data)))
    rows, columns = np.nonzero(np.abs(drawn).sum(axis=2) > 60)
    x, y = placement.to_image(*DEFECT)
    assert np.hypot(columns.mean() - x, rows.mean() - y) < 20
    assert len(rows) < 0.15 * 240 * 200
    assert draw_sheet(diagnosis, "part.png").size[0] > 240


def test_an_image_without_a_part_needs_review(trained: tuple[Path, Manifest, list[str]], detector: Detector) -> None:
    manifest = trained[1]
    empty = encoded(Image.new("RGB", (240, 200), (200, 200, 200)))
    diagnosis = diagnose(detector, empty, threshold=manifest.threshold.value, review_threshold=None, inputs=None)
    assert (diagnosis.verdict, diagnosis.reasons) == ("review", [POSE])


def test_the_report_renders_with_heatmaps_on_the_images_as_sent(trained: tuple[Path, Manifest, list[str]]) -> None:
    text = trained[0].with_suffix(".html").read_text(encoding="utf-8")
    page = Page(text)
    assert text.count("<figure>") > 6
    shapes = {Image.open(io.BytesIO(data)).size for data in embedded_jpegs(page)}
    assert shapes == {(240, 200)}


def embedded_jpegs(page: Page) -> list[bytes]:
    matches = (re.fullmatch(r"data:image/jpeg;base64,(.*)", source) for source in page.sources)
    return [base64.b64decode(match[1]) for match in matches if match]


def test_as_is_is_the_choice_of_the_user(parts: Path, tmp_path: Path) -> None:
    manifest = train(parts, tmp_path / "out", replace(OPTIONS, pose="as-is"), lambda _: None)
    assert manifest.preprocessing.upright is None
    assert manifest.metrics is not None
    assert manifest.metrics.auroc < 1


def test_upright_is_refused_where_no_part_is_found(parts: Path, tmp_path: Path) -> None:
    good = tmp_path / "train" / "good"
    good.mkdir(parents=True)
    for seed in range(12):
        noise = np.random.default_rng(seed).normal(120, 30, (60, 80, 3)).clip(0, 255)
        Image.fromarray(noise.astype(np.uint8)).save(good / f"{seed}.png")
    with pytest.raises(InvalidOptions, match="cannot be brought upright: each must lie alone on an even background"):
        train(tmp_path, tmp_path / "out", replace(OPTIONS, pose="upright"), lambda _: None)
