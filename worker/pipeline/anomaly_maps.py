"""Anomaly maps of images, computed once for each model version and kept in the store."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.storage.image_store import Store
from core.vision.input.map_placement import place_map
from worker.pipeline.isolated_decoding import IsolatedDecoder
from worker.pipeline.loaded_models import LoadedModel


def anomaly_map(
    store: Store, model: LoadedModel, decoder: IsolatedDecoder, image: Path, key: str
) -> NDArray[np.float32]:
    """The anomaly map over the whole image as sent, float32 (rows, columns). It is stored under `key`.

    Raises:
        core.intake.image_decoding.Undecodable: the image cannot be decoded or scored.
    """
    if store.holds(key):
        stored: NDArray[np.float32] = np.load(io.BytesIO(store.read(key)), allow_pickle=False)
        return stored
    prepared = decoder.prepare(image)
    anomaly = place_map(model.anomaly_map(prepared.pixels), prepared)
    out = io.BytesIO()
    np.save(out, anomaly, allow_pickle=False)
    store.put(key, out.getvalue())
    return anomaly
