"""The HTTP side of one Celery task an image: saves the upload to a file, and answers with the task's id."""

import os
from pathlib import Path
from uuid import uuid4

from celery import Celery
from fastapi import FastAPI, UploadFile

app = FastAPI()
_folder = Path(os.environ["BENCH_IMAGES"])
_score = Celery(broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_BACKEND"]).signature(
    "benchmarks.speed.peers.celery_app.score"
)


@app.post("/inspections", status_code=202)
def submit(file: UploadFile) -> dict[str, str]:
    """Accept an image."""
    path = _folder / uuid4().hex
    path.write_bytes(file.file.read())
    return {"id": _score.delay(str(path)).id}
