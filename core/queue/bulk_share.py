"""The guaranteed share of bulk work: a fraction of all images, even while live work keeps every worker busy.

Bulk work makes way for the line, so under a steady live load it would never end. Each dispatcher round looks at what
was finished since the last look, and where bulk work had less than its share it is granted minibatches, which travel
on the queue of live work. With `live` images of the line and `bulk` images of bulk work since the last look:

    credit += share * (live + bulk) - bulk = share * live - (1 - share) * bulk

A grant is charged when it is made, not when it is scored: `scored_seen` and `credit` move at once as if its images
were scored already. So a grant that still waits behind live work is not granted a second time; and one that was lost
with its message costs only itself, for what the line does next earns new credit.

Idle hours pile up nothing. The debt of bulk work that had the machine to itself is at most one minibatch, and so is
the credit while no bulk work waits; one look counts at most `LIVE_AT_ONCE` of the line, however long nobody looked.
"""

from sqlalchemy import Connection, text

LIVE_AT_ONCE = 160
"""Minibatches of the line that one look counts: after an hour without a dispatcher the line is not flooded."""

# Live images are the growth of the feed. An entry for a review or a cancellation counts as one: they are few.
_GRANT = text("""
WITH held AS (
    SELECT * FROM bulk_share FOR UPDATE SKIP LOCKED
), earned AS (
    SELECT scored, scored_seen, feed_seen, greatest(
        -:charge,
        credit + :share * least(greatest(:feed_newest - feed_seen, 0), :most)
            - (1 - :share) * greatest(scored - scored_seen, 0)
    ) AS credit FROM held
), given AS (
    SELECT *, CASE WHEN :waiting THEN greatest(floor(credit / :charge), 0) ELSE 0 END AS minibatches FROM earned
)
UPDATE bulk_share SET
    credit = least(given.credit - given.minibatches * :charge, :charge),
    feed_seen = greatest(:feed_newest, given.feed_seen),
    scored_seen = CASE WHEN :waiting
        THEN greatest(given.scored, given.scored_seen) + CAST(given.minibatches AS bigint) * :minibatch
        ELSE given.scored END
FROM given
RETURNING CAST(given.minibatches AS bigint) * :minibatch
""")


def grant(connection: Connection, *, feed_newest: int, share: float, minibatch: int, waiting: bool) -> int:
    """How many images bulk work may have now whatever else waits: a multiple of `minibatch`, mostly 0.

    Whoever calls it must publish them. Of several callers at once one gets them; where the row is locked, by another
    look or by results that are being counted, nothing is granted and the next look sees more.

    Args:
        feed_newest: the newest number of the feed.
        share: of all images that are finished, 0 to 0.9; 0 grants nothing.
        waiting: whether any bulk work waits for a worker; otherwise unused grants are dropped.
    """
    if not share:
        return 0
    given = {
        "feed_newest": feed_newest,
        "share": share,
        "minibatch": minibatch,
        "waiting": waiting,
        "charge": (1 - share) * minibatch,
        "most": LIVE_AT_ONCE * minibatch,
    }
    return int(connection.execute(_GRANT, given).scalar() or 0)


def note_scored(connection: Connection, images: int) -> None:
    """Count images of archives that were scored. Everybody writes this row: do it late in a transaction."""
    connection.execute(text("UPDATE bulk_share SET scored = scored + :images"), {"images": images})


def note_finished(connection: Connection, inspections: int) -> None:
    """Count bulk inspections that became final: they enter the feed, too, and are no work of the line's there."""
    connection.execute(
        text("UPDATE bulk_share SET scored = scored + :number, feed_seen = feed_seen + :number"),
        {"number": inspections},
    )
