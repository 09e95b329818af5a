"""The HTML report of a training: self-contained, complete, and safe against unusual names."""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from core.vision.bundle.manifest import Manifest
from core.vision.calibration.record import ReviewBand
from core.vision.evaluation.examples import EXAMPLES_PER_KIND
from core.vision.evaluation.similar_images import SimilarImages, SimilarPair
from core.vision.evaluation.training_report import ReportContent, TrialRow, render
from core.vision.train import TrainingOptions, train
from core.vision.training.fit_interface import Epoch
from tests.fixtures.detectability_records import ADVICE, REASON, STATEMENT, record
from tests.fixtures.html_pages import Page

OPTIONS = TrainingOptions(
    architecture="conv-autoencoder", score_method="mse", input_size=32, epochs=2, false_reject_rate=0.1, device="cpu"
)
EVIL = "<script>alert(1)<script>&quot;.png"


@pytest.fixture(scope="module")
def trained(part: Callable[..., bytes], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Manifest]:
    """The report of a training on large images, some with unusual names or broken."""
    root = tmp_path_factory.mktemp("report")
    folder = root / "<b>parts"
    for kind, seeds in {"train/good": range(30), "test/good": range(30, 40), "test/<i>": range(40, 52)}.items():
        (folder / kind).mkdir(parents=True)
        for seed in seeds:
            (folder / kind / f"{seed}.png").write_bytes(part(seed, side=400, defective=kind == "test/<i>"))
    (folder / "train" / "good" / EVIL).write_bytes(b"broken")
    manifest = train(folder, root / "out", OPTIONS, lambda _: None, report=root / "page.html")
    return (root / "page.html").read_text(encoding="utf-8"), manifest


def test_the_report_is_well_formed_and_loads_nothing(trained: tuple[str, Manifest]) -> None:
    page = Page(trained[0])
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r'base64,[^"]*', "", trained[0]))
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)


def test_names_are_escaped(trained: tuple[str, Manifest]) -> None:
    assert "<script>" not in trained[0]
    assert "<b>parts" not in trained[0]
    assert "test/<i>" not in trained[0]
    for shown in ("&lt;script&gt;alert(1)&lt;script&gt;&amp;quot;.png", "&lt;b&gt;parts", "test/&lt;i&gt;"):
        assert shown in trained[0]


def test_the_size_of_the_report_is_limited(trained: tuple[str, Manifest]) -> None:
    assert trained[0].count("<figure>") <= 3 * EXAMPLES_PER_KIND
    assert trained[0].count("<figure>") > EXAMPLES_PER_KIND
    assert len(trained[0]) < 3_000_000


def test_the_report_states_the_threshold_and_its_expected_rate(trained: tuple[str, Manifest]) -> None:
    text, manifest = trained
    calibration, metrics = manifest.threshold.calibration, manifest.metrics
    assert calibration is not None
    assert metrics is not None
    assert f"{manifest.threshold.value:.6g} or more" in text
    assert f"threshold {manifest.threshold.value:.4g}</text>" in text
    low, high = calibration.confidence_interval
    assert f"about {calibration.expected_false_reject_rate:.1%} will be rejected" in text
    assert f"between {low:.1%} and {high:.1%}" in text
    assert "from 30 good parts, worth 16 independent ones, scored by detectors that were not trained on them" in text
    assert "30 training, 30 calibration" in text
    assert f"{round(metrics.recall * metrics.defective)} of {metrics.defective}" in text
    assert f"{metrics.auroc:.3f}" in text
    for control in ("darkness", "odd brightness", "contrast", "nearest thumbnail"):
        assert f"control: {control}" in text
    assert "1 of 31 images cannot be read" in text
    assert manifest.training is not None
    assert manifest.training.training_set_digest in text


def test_a_review_threshold_is_marked_and_explained(trained: tuple[str, Manifest]) -> None:
    value = trained[1].threshold.value
    band = ReviewBand(threshold=value / 2, rate=0.2, expected_rate=0.19, confidence_interval=(0.1, 0.3))
    calibration = trained[1].threshold.calibration
    assert calibration is not None
    calibration = calibration.model_copy(
        update={"review": band, "sample_size": 20, "groups": 5, "effective_sample_size": 7.2}
    )
    threshold = trained[1].threshold.model_copy(update={"calibration": calibration})
    manifest = trained[1].model_copy(update={"review_threshold": value / 2, "threshold": threshold})
    text = render(ReportContent("parts", manifest, "0" * 64, [Epoch(1, 0.5, 0.4)], np.linspace(0, value * 0.99, 20)))
    assert f"review from {value / 2:.4g}</text>" in text
    assert "a person decides, for about 19.0% of good parts" in text
    assert "from 20 good parts of 5 groups, worth 7 independent ones, scored by detectors that were not" in text
    Page(text)


def test_the_curve_says_what_its_validation_loss_is_measured_on(trained: tuple[str, Manifest]) -> None:
    assert "2 epochs. The validation loss is that of networks which were trained without the images" in trained[0]


@pytest.mark.parametrize("by_test", [False, True])
def test_what_was_tried_is_a_table_with_the_chosen_one_first(trained: tuple[str, Manifest], by_test: bool) -> None:
    test_auroc = 0.875 if by_test else None
    training = trained[1].training
    assert training is not None
    options = {**training.options, "choose_by": "test" if by_test else "synthetic"}
    manifest = trained[1].model_copy(update={"training": training.model_copy(update={"options": options})})
    trials = [
        TrialRow("memory-bank, 384 px, <upright>", 0.91, 0.5, test_auroc, 21.26),
        TrialRow("feature-gaussian, 256 px", 0.95, 0.25, test_auroc, 50.0),
    ]
    text = render(ReportContent("parts", manifest, "0" * 64, [], np.array([0.01]), trials=trials))
    Page(text)
    assert "What was tried" in text
    assert ("chosen by the images in test/" in text) == by_test
    assert ("by synthetic defects on good parts alone" in text) != by_test
    assert ("AUROC, test/" in text) == ("0.875" in text) == by_test
    chosen, other = (row for row in text.split("<tr") if "memory-bank, 384" in row or "feature-gaussian, 256" in row)
    assert chosen.startswith(' class="own"')
    for shown in ("memory-bank, 384 px, &lt;upright&gt;", "0.910", "50%", "21.3"):
        assert shown in chosen
    assert other.startswith(">")
    assert "What was tried" not in trained[0]


def test_a_minimal_training_has_a_report_too(trained: tuple[str, Manifest]) -> None:
    manifest = trained[1].model_copy(update={"metrics": None, "inputs": None})
    account = ReportContent("parts", manifest, "0" * 64, [Epoch(1, 0.5, 0.4)], np.array([0.01, 0.01]))
    text = render(account)
    assert "detection is not measured" in text
    assert "<h2>Detection</h2>" not in text
    Page(text)
    Page(render(replace(account, curve=[Epoch(1, float("nan"), 0.4)], held_out=np.zeros(3))))


def test_the_report_warns_if_a_trivial_score_beats_the_detector(trained: tuple[str, Manifest]) -> None:
    metrics = trained[1].metrics
    assert metrics is not None
    beaten = metrics.model_copy(update={"auroc": 0.6, "controls": {"mean_brightness": 0.7}})
    manifest = trained[1].model_copy(update={"metrics": beaten})
    text = render(ReportContent("parts", manifest, "0" * 64, [], np.array([0.01])))
    assert "darkness, separates the test parts as well as the detector does" in text
    assert "so this test says nothing about the detector" in text


@pytest.mark.parametrize("fit", [True, False])
def test_the_report_says_what_the_detector_can_find(trained: tuple[str, Manifest], fit: bool) -> None:
    manifest = trained[1].model_copy(update={"detectability": record(fit_for_use=fit)})
    text = render(ReportContent("parts", manifest, "0" * 64, [], np.array([0.01])))
    Page(text)
    for sentence in STATEMENT:
        assert f"<p>{sentence}</p>" in text
    assert "<h3>Spots</h3>" in text
    assert (f"<b>Not fit for use</b>: {REASON}.</p><p>What to try: {ADVICE}." in text) is not fit


def test_a_report_without_detectability_does_not_mention_it(trained: tuple[str, Manifest]) -> None:
    manifest = trained[1].model_copy(update={"detectability": None})
    text = render(ReportContent("parts", manifest, "0" * 64, [], np.array([0.01])))
    assert "What it can find" not in text
    assert "<h3>Spots</h3>" not in text


def test_similar_images_are_shown_in_pairs_with_what_to_do_if_they_show_different_parts(
    trained: tuple[str, Manifest],
) -> None:
    assert "Images that count as one part" not in trained[0]
    pair = SimilarPair(("<b>1.png", "deep/2.png"), (b"first", b"second"), 0.98765)
    content = ReportContent(
        "parts", trained[1], "0" * 64, [], np.array([0.01]), similar=SimilarImages(7, 3, [pair, pair])
    )
    text = render(content)
    assert "<h2>Images that count as one part</h2>" in text
    assert "7 images of good parts look like several shots of the same parts, in 3 groups" in text
    assert "<code>--group-by '(.*)'</code>" in text
    assert text.count("&lt;b&gt;1.png, deep/2.png<span>similarity 0.988</span>") == 2
    assert len([source for source in Page(text).sources if source.endswith(("Zmlyc3Q=", "c2Vjb25k"))]) == 4
