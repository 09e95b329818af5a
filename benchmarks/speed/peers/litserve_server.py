"""LitServe, tuned as its documentation advises: batching, a worker for each core, the fast queue, several API servers.

`python -m benchmarks.speed.peers.litserve_server PORT WORKERS` reads a `Tuning` as JSON from standard input.
"""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import litserve  # type: ignore[import-not-found,unused-ignore]
import torch
from fastapi import File
from pydantic import TypeAdapter

from benchmarks.speed.peers.scoring import Scorer
from benchmarks.speed.peers.tuning import Tuning


class Inspection(litserve.LitAPI):  # type: ignore[misc,unused-ignore]
    """Scores images in batches."""

    def setup(self, device: str) -> None:
        torch.set_num_threads(1)  # there is a worker for each core
        self.scorer = Scorer()

    def decode_request(self, request: Annotated[bytes, File()]) -> Any:
        return self.scorer.prepare(request)

    def batch(self, inputs: Sequence[Any]) -> Sequence[Any]:
        return inputs

    def predict(self, images: Any) -> Any:
        if self.max_batch_size == 1:  # then LitServe passes one image, not a list
            return self.scorer.score([images])[0]
        return self.scorer.score(images)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        return output


if __name__ == "__main__":
    port, workers = map(int, sys.argv[1:])
    tuning = TypeAdapter(Tuning).validate_json(sys.stdin.buffer.read())
    api = Inspection(max_batch_size=tuning.batch_size, batch_timeout=tuning.batch_timeout)
    server = litserve.LitServer(api, workers_per_device=workers, fast_queue=tuning.fast_queue, timeout=False)
    server.run(
        host="127.0.0.1",
        port=port,
        num_api_servers=tuning.api_servers,
        log_level="warning",
        generate_client_file=False,
    )
