"""The scores of good parts that a detector was not fitted to, from its bundle: the reference of its later scores."""

import json
import math
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, text

from core.drift.distributions import Histogram
from core.drift.grids import GRIDS

FILE: Final = "held_out_scores.json"
"""The file in a bundle: a list of numbers, or an object with this list as `scores`."""

_KEEP = text(f"""
INSERT INTO drift_references (model_version_id, bins, counts)
SELECT :version_id, array_agg(bin ORDER BY bin), array_agg(count ORDER BY bin) FROM (
    SELECT {GRIDS["score"].bin_sql("score")} AS bin, count(*) AS count
    FROM unnest(CAST(:scores AS float8[])) AS score GROUP BY 1
) AS counted HAVING count(*) > 0
ON CONFLICT (model_version_id) DO NOTHING
""")  # noqa: S608 - the expression is a constant


def parse(encoded: bytes) -> list[float]:
    """Return the scores in the content of `FILE`. Empty if it holds something else, as a later format might."""
    try:
        content: Any = json.loads(encoded, parse_int=float)
    except (ValueError, RecursionError):
        return []
    scores = content.get("scores") if isinstance(content, dict) else content
    if not isinstance(scores, list):
        return []
    return [score for score in scores if isinstance(score, float) and math.isfinite(score)]


def keep(connection: Connection, version_id: int, scores: list[float]) -> None:
    """Keep the held-out scores of a model version; does nothing if there are none, or if they are kept already."""
    connection.execute(_KEEP, {"version_id": version_id, "scores": scores})


def read(connection: Connection, version_id: int) -> Histogram | None:
    """Return the held-out scores of a model version; None if its bundle does not record them."""
    row = connection.execute(
        text("SELECT bins, counts FROM drift_references WHERE model_version_id = :id"), {"id": version_id}
    ).one_or_none()
    if row is None:
        return None
    return Histogram(np.array(row.bins, dtype=np.int64), np.array(row.counts, dtype=np.int64))
