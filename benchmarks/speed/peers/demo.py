"""The synchronous demo's style: one process decodes and scores in the handler, one image at a time."""

from typing import Any

from fastapi import FastAPI, UploadFile

from benchmarks.speed.peers.scoring import Scorer

app = FastAPI()
_scorer = Scorer()


@app.post("/predict")
def predict(file: UploadFile) -> dict[str, Any]:
    """Score an image."""
    return _scorer.score([_scorer.prepare(file.file.read())])[0]
