"""The scores of good parts that a detector was not fitted to, from its newest calibration: the reference of drift."""

from typing import Final

import numpy as np
from sqlalchemy import Connection, text

from core.drift.distributions import Histogram
from core.drift.grids import GRIDS

_READ: Final = text(f"""
SELECT {GRIDS["score"].bin_sql("score")} AS bin, count(*) AS count
FROM unnest((
    SELECT held_out_scores FROM thresholds
    WHERE model_version_id = :id AND station_id IS NULL AND held_out_scores IS NOT NULL ORDER BY id DESC LIMIT 1
)) AS score GROUP BY 1 ORDER BY 1
""")  # noqa: S608 - the expression is a constant


def read(connection: Connection, version_id: int) -> Histogram | None:
    """Return the held-out scores of a model version; None if no calibration has recorded them."""
    rows = connection.execute(_READ, {"id": version_id}).all()
    if not rows:
        return None
    bins, counts = zip(*rows, strict=True)
    return Histogram(np.array(bins, dtype=np.int64), np.array(counts, dtype=np.int64))
