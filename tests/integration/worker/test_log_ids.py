"""JSON lines of a scoring worker name the image, or the minibatch, that they are about."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from core.logs import JsonFormatter
from core.settings import Settings
from tests.fixtures.scoring_queue import Queue
from worker.pipeline.loaded_models import LoadedModel


@pytest.fixture
def queue(settings: Settings, engine: Engine, bundle: Path) -> Iterator[Queue]:
    queue = Queue(settings, engine, bundle)
    yield queue
    queue.close()


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """What the pipeline logs, formatted where it is logged."""
    logged: list[dict[str, Any]] = []

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append(json.loads(JsonFormatter().format(record)))

    handler, logger = Collecting(), logging.getLogger("worker.pipeline")
    logger.addHandler(handler)
    yield logged
    logger.removeHandler(handler)


def test_a_line_about_an_image_has_its_id(
    queue: Queue, lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("unforeseen")

    ids = queue.upload(2)
    monkeypatch.setattr(LoadedModel, "prepare", fail)
    queue.score(ids)
    about_images = [line for line in lines if line["message"].startswith("an image could not be prepared")]
    assert {line["inspection_id"] for line in about_images} == {str(id_) for id_ in ids}
    assert not any("inspection_ids" in line for line in about_images)


def test_a_line_about_a_minibatch_has_all_ids(
    queue: Queue, lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    score = LoadedModel.score

    def fail_together(self: LoadedModel, images: Any) -> Any:
        if len(images) > 1:
            raise ValueError("too many")
        return score(self, images)

    ids = queue.upload(3)
    monkeypatch.setattr(LoadedModel, "score", fail_together)
    queue.score(ids)
    assert queue.outcomes(ids) == ["completed"] * 3
    about_minibatch = [line for line in lines if "could not be scored" in line["message"]]
    assert about_minibatch
    assert all(sorted(line["inspection_ids"]) == sorted(map(str, ids)) for line in about_minibatch)
