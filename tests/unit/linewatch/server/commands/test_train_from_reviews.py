"""What `linewatch train --from-reviews` does and says with few, one-sided or missing reviews."""

import hashlib
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from core.vision.training_options import TrainingOptions
from linewatch import Client
from linewatch.cli.failures import CommandFailed
from linewatch.server.commands.train_from_reviews import Learning, ReviewOptions, learning_from_reviews
from tests.fixtures.mock_system import INSPECTION, problem
from tests.fixtures.part_images import png, write_folder

OPTIONS = TrainingOptions(architecture="feature-gaussian", device="cpu")


def reviewed(number: int, verdict: str, said: str, content: bytes, part_id: str | None = None) -> dict[str, Any]:
    review = {"id": str(UUID(int=number)), "verdict": said, "reviewer": "Jo", "reason": "dust", "actor": "local"}
    return {
        **INSPECTION,
        "id": str(UUID(int=number)),
        "status": "completed",
        "verdict": verdict,
        "effective_verdict": said,
        "part_id": part_id,
        "reviews": [{**review, "created_at": "2026-01-01T00:00:00Z"}],
        "image": {**INSPECTION["image"], "sha256": hashlib.sha256(content).hexdigest()},
    }


Learn = Callable[..., Learning]


@pytest.fixture
def learn() -> Any:
    """`learn(false_rejects=…, defects=…)` starts to learn from so many reviews; the ids count from 0."""
    with ExitStack() as stack:

        def start(
            *,
            false_rejects: int = 0,
            defects: int = 0,
            confirmed: int = 0,
            gone: int = 0,
            data: Path | None = None,
            options: TrainingOptions = OPTIONS,
            choice_is_open: bool = True,
            compare: int = 0,
        ) -> Learning:
            kinds = [*[("ng", "ok")] * false_rejects, *[("ok", "ng")] * defects, *[("ok", "ok")] * confirmed]
            contents = [png(5000 + number, scratched=said == "ng") for number, (_, said) in enumerate(kinds)]
            items = [
                reviewed(number, verdict, said, content)
                for number, ((verdict, said), content) in enumerate(zip(kinds, contents, strict=True))
            ]

            def answer(request: httpx.Request) -> httpx.Response:
                if request.url.path == "/v1/inspections":
                    if request.url.params.get("reviewed") is None:
                        return problem(403, "forbidden")  # the listing of the comparison
                    return httpx.Response(200, json={"items": items, "next_cursor": None})
                number = UUID(request.url.path.split("/")[-2]).int
                return problem(404, "not_found") if number < gone else httpx.Response(200, content=contents[number])

            system = stack.enter_context(Client("http://system.test", transport=httpx.MockTransport(answer)))
            return stack.enter_context(
                learning_from_reviews(
                    system, "ring", ReviewOptions({}, compare), data, options, choice_is_open=choice_is_open
                )
            )

        yield start


def test_with_enough_reviews_real_defects_choose(learn: Learn, tmp_path: Path) -> None:
    learning = learn(false_rejects=40, defects=12, confirmed=3, data=write_folder(tmp_path / "data", good=20))
    assert learning.options.choose_by == "test"
    assert learning.notes == [
        "40 images rejected by the machine and reviewed ok: 10 held in test/good.",
        "12 images reviewed ng: in test/reviewed-ng.",
        f"2 images of {tmp_path / 'data'}/train/good held in test/good, too.",
        "3 images not used: ok for the machine and reviewed ok.",
        "test/good has parts that the machine had rejected, so more of them are rejected than of ordinary parts.",
    ]
    assert learning.document()["reviews"]["train_good"] == 30 + 18
    assert learning.folder.root.name == "ring-reviewed"


def test_a_choice_of_the_user_is_kept(learn: Learn) -> None:
    learning = learn(false_rejects=40, defects=12, choice_is_open=False)
    assert learning.options == OPTIONS


def test_without_defects_nothing_is_held_and_synthetic_ones_choose(learn: Learn) -> None:
    learning = learn(false_rejects=12, gone=1)
    assert learning.options.choose_by == "synthetic"
    assert learning.folder.train_good == 11
    assert learning.notes == [
        "11 images rejected by the machine and reviewed ok: 0 held in test/good.",
        "0 images reviewed ng: in test/reviewed-ng.",
        "1 image skipped: no longer in the store.",
        "Without --data, only false rejects are trained on: name the folder of good parts of the last training.",
        "No defective image to choose the detector by or to judge it: synthetic defects choose it.",
    ]


def test_without_good_images_to_judge_with_synthetic_defects_choose(learn: Learn, tmp_path: Path) -> None:
    learning = learn(defects=3, data=write_folder(tmp_path / "data", good=9))
    assert learning.options.choose_by == "synthetic"
    assert (learning.folder.train_good, learning.folder.test_good) == (9, 0)
    assert "No good image to choose the detector by or to judge it: synthetic defects choose it." in learning.notes


def test_few_reviews_are_said(learn: Learn, tmp_path: Path) -> None:
    learning = learn(false_rejects=4, defects=1, data=write_folder(tmp_path / "data", good=20))
    assert learning.options.choose_by == "test"
    text = "\n".join(learning.notes)
    assert "Only 1 image of defects to choose the detector by" in text
    assert "Only 4 images reviewed ok, fewer than 20" in text


def test_nothing_to_learn_from_is_refused(learn: Learn, tmp_path: Path) -> None:
    for reviews, line in (
        ({}, "no matching inspection of recipe 'ring' has a review to learn from: review rejected parts"),
        ({"confirmed": 2}, r"a review to learn from \(2 reviews confirm an ok, which teaches nothing new\)"),
        ({"defects": 2}, "nothing to train on: name a folder of good parts with --data"),
        ({"false_rejects": 2, "gone": 2}, "none of the images is left to train on"),
    ):
        with pytest.raises(CommandFailed, match=line):
            learn(**reviews)


def test_a_comparison_that_fails_loses_no_bundle(
    learn: Learn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = learn(false_rejects=8)
    section = silent.compare(tmp_path)
    assert (section.notes, section.comparison) == (silent.notes, None)
    failing = learn(false_rejects=8, compare=5)
    capsys.readouterr()
    assert failing.compare(tmp_path).comparison is None
    assert re.search(r"cannot be compared with past inspections: .*\(forbidden\)", capsys.readouterr().err)
    assert failing.document()["comparison"] is None
    failing.print_comparison()
    assert capsys.readouterr().out == ""
