"""The guaranteed share of bulk work (placeholder until the rule lands)."""

from sqlalchemy import Connection, text


def scored(connection: Connection, pictures: int) -> None:
    """Count pictures of bulk work that were scored."""
    connection.execute(text("UPDATE bulk_share SET scored = scored + :pictures"), {"pictures": pictures})
