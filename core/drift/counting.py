"""Count finished inspections by day, from the feed, so that finishing an inspection costs nothing more.

The feed names each final inspection once and never skips one. The counts and the number up to which the feed is counted
change in one transaction, so each inspection is counted exactly once, whatever is killed or restarted.
"""

from collections.abc import Mapping

from sqlalchemy import Connection, text

from core.drift.grids import GRIDS, Measure

AT_ONCE = 5000

_SOURCES: Mapping[Measure, str] = {
    "score": "part.anomaly_score",
    "brightness": "CAST(part.brightness AS float8)",
    "contrast": "CAST(part.contrast AS float8)",
    "sharpness": "CAST(part.sharpness AS float8)",
}
_VALUES = ", ".join(f"('{measure}', {GRIDS[measure].bin_sql(value)})" for measure, value in _SOURCES.items())
_DAY = "CAST(part.created_at AT TIME ZONE 'UTC' AS date)"
_KEY = f"part.recipe_id, {_DAY}, part.model_version_id, coalesce(part.station_id, '')"

# One inspection by its id: a join could read all inspections. What no worker writes is left out, because it could not
# be counted, and nothing after it either.
_COUNT = text(f"""
WITH position AS (
    SELECT feed_number FROM drift_state FOR NO KEY UPDATE SKIP LOCKED
), entry AS (
    SELECT number, inspection_id, event, numbered_at FROM feed
    WHERE number > (SELECT feed_number FROM position) ORDER BY number LIMIT :at_most
), part AS MATERIALIZED (
    SELECT inspection.* FROM entry CROSS JOIN LATERAL (
        SELECT recipe_id, created_at, model_version_id, station_id, verdict, anomaly_score, brightness, contrast,
            sharpness
        FROM inspections WHERE id = entry.inspection_id AND status = 'completed' AND model_version_id IS NOT NULL
          AND anomaly_score > '-Infinity' AND anomaly_score < 'Infinity' LIMIT 1
    ) AS inspection
    WHERE entry.event = 'final'
), counted_days AS (
    INSERT INTO drift_days (recipe_id, day, model_version_id, station_id, ok, ng, review)
    SELECT {_KEY}, count(*) FILTER (WHERE verdict = 'ok'), count(*) FILTER (WHERE verdict = 'ng'),
        count(*) FILTER (WHERE verdict = 'review')
    FROM part GROUP BY 1, 2, 3, 4
    ON CONFLICT (recipe_id, day, model_version_id, station_id) DO UPDATE
        SET ok = drift_days.ok + excluded.ok, ng = drift_days.ng + excluded.ng,
            review = drift_days.review + excluded.review
), counted_histograms AS (
    INSERT INTO drift_histograms (recipe_id, day, model_version_id, station_id, measure, bin, count)
    SELECT {_KEY}, value.measure, value.bin, count(*)
    FROM part CROSS JOIN LATERAL (VALUES {_VALUES}) AS value(measure, bin)
    WHERE value.bin IS NOT NULL GROUP BY 1, 2, 3, 4, 5, 6
    ON CONFLICT (recipe_id, day, model_version_id, station_id, measure, bin) DO UPDATE
        SET count = drift_histograms.count + excluded.count
), newest AS (
    SELECT count(*) AS entries, max(number) AS number, max(numbered_at) AS numbered_at FROM entry
)
UPDATE drift_state SET feed_number = coalesce(newest.number, feed_number),
    counted_until = CASE WHEN newest.entries < :at_most THEN now() ELSE newest.numbered_at END
FROM newest WHERE EXISTS (SELECT FROM position)
RETURNING newest.entries
""")  # noqa: S608 - the expressions are constants


def count_finished(connection: Connection, *, at_most: int = AT_ONCE) -> int:
    """Count up to `at_most` further entries of the feed; returns how many. Returns 0 if another process is counting."""
    return int(connection.execute(_COUNT, {"at_most": at_most}).scalar() or 0)
