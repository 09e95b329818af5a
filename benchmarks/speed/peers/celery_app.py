"""One Celery task an image, as people build it: prefork processes, Redis as broker and as result backend."""

import os
from pathlib import Path
from typing import Any

import torch
from celery import Celery, signals

from benchmarks.speed.peers.scoring import Scorer

app = Celery(broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_BACKEND"])
_scorers: list[Scorer] = []


@signals.worker_process_init.connect
def _load(**_: object) -> None:
    torch.set_num_threads(1)  # there is a process for each core
    _scorers.append(Scorer())


@app.task
def score(path: str) -> dict[str, Any]:
    """Score the image in a file."""
    [scorer] = _scorers
    return scorer.score([scorer.prepare(Path(path).read_bytes())])[0]
