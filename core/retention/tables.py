"""The tables of retention. They stay small: a row for each hold, for each day with images, for each removed month."""

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Date, Index, Table, Text, Uuid, text

from core.tables import NEW_ID, NOW, Timestamp, metadata

# While a hold is active, nothing of its lot or of its part is removed.
legal_holds = Table(
    "legal_holds",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=NEW_ID),
    Column("lot_id", Text),
    Column("part_id", Text),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column("released_at", Timestamp),
    Column("released_by", Text),
    Column("release_reason", Text),
    CheckConstraint("num_nonnulls(lot_id, part_id) = 1", name="lot_or_part"),
    Index("ix_legal_holds_active", "id", postgresql_where=text("released_at IS NULL")),
)

# The days whose images were checked. A day is checked again once `due_on` has come, or under other `rules`: a digest of
# the policies and holds. `due_on` is null if nothing of the day can end under these rules. `lost_rows` says whether
# inspections of about that day were removed; only then an image without an inspection is removed with its row.
retention_days = Table(
    "retention_days",
    metadata,
    Column("day", Date, primary_key=True),
    Column("rules", Text, nullable=False, server_default=""),
    Column("due_on", Date),
    Column("lost_rows", Boolean, nullable=False, server_default=text("false")),
    Column("checked_at", Timestamp, nullable=False, server_default=NOW),
)

# The months whose inspections were removed with their partition, and the range of the ids. `cleaned_at` is null until
# their reviews and batches are removed, too.
removed_months = Table(
    "removed_months",
    metadata,
    Column("first_id", Uuid, primary_key=True),
    Column("end_id", Uuid, nullable=False),
    Column("month", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("removed_at", Timestamp, nullable=False, server_default=NOW),
    Column("cleaned_at", Timestamp),
)
