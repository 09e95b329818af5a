"""The guaranteed share of bulk work: a fraction of all images, even while live work keeps every worker busy.

Live work goes first, so under a steady live load bulk work would never end. Each dispatcher round counts the images
that were finished since the last round. If bulk work got less than its share, it is granted minibatches, which go to
the queue of live work. With `live` and `bulk` images finished since the last round:

    credit += share * (live + bulk) - bulk = share * live - (1 - share) * bulk

A grant is charged when it is made, not when it is scored: `scored_seen` and `credit` are updated as if its images were
scored. So a grant that still waits behind live work is not made twice, and a grant whose message is lost costs only
itself: later live work earns new credit.

Nothing accumulates in idle hours. The debt after a time with bulk work only is at most one minibatch, and so is the
credit while no bulk work waits. One round counts at most `LIVE_AT_ONCE` minibatches of live work, however long ago the
last round was.
"""

from sqlalchemy import Connection, text

LIVE_AT_ONCE = 160
"""Minibatches of live work that one round counts, so that live work is not flooded after the dispatcher was down."""

# Live images are the growth of the feed. Entries of reviews and cancellations count, too; they are few.
_GRANT = text("""
WITH held AS (
    SELECT * FROM bulk_share FOR NO KEY UPDATE SKIP LOCKED
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
    """Return how many bulk images may be published to the live queue now: a multiple of `minibatch`, usually 0.

    The caller must publish them. Of several concurrent callers, one gets the grant. If the row is locked, by another
    caller or by results that are being counted, nothing is granted until the next call.

    Args:
        feed_newest: the number of the newest feed entry.
        share: the share of all finished images, 0 to 0.9; 0 grants nothing.
        waiting: whether any bulk work waits for a worker; if not, unused credit is dropped.
    """
    if not share:
        return 0
    parameters = {
        "feed_newest": feed_newest,
        "share": share,
        "minibatch": minibatch,
        "waiting": waiting,
        "charge": (1 - share) * minibatch,
        "most": LIVE_AT_ONCE * minibatch,
    }
    return int(connection.execute(_GRANT, parameters).scalar() or 0)


def note_scored(connection: Connection, images: int) -> None:
    """Count archive images that were scored. All workers write this row: call it late in a transaction."""
    connection.execute(text("UPDATE bulk_share SET scored = scored + :images"), {"images": images})


def note_finished(connection: Connection, inspections: int) -> None:
    """Count bulk inspections that became final. They are in the feed, too, where they must not count as live work."""
    connection.execute(
        text("UPDATE bulk_share SET scored = scored + :number, feed_seen = feed_seen + :number"),
        {"number": inspections},
    )
