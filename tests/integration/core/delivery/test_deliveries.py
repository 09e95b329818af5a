"""The listing of deliveries is fast regardless of their number."""

import pytest
from sqlalchemy import Engine, text

from core.delivery import deliveries
from core.delivery.deliveries import State


def insert(engine: Engine, number: int) -> None:
    """Insert deliveries of forty endpoints; every hundredth is exhausted."""
    with engine.begin() as connection:
        connection.execute(
            text("""
                WITH endpoint AS (
                    INSERT INTO webhook_endpoints (url, events, secret)
                    SELECT 'http://mes', '{}', 's' FROM generate_series(1, 40) RETURNING id
                )
                INSERT INTO deliveries (endpoint_id, event, subject_id, state)
                SELECT id, 'endpoint.test', 'x', CASE WHEN n % 100 = 0 THEN 'exhausted' ELSE 'delivered' END
                FROM endpoint, generate_series(1, :number) AS n
            """),
            {"number": number},
        )
        connection.execute(text("ANALYZE deliveries"))


@pytest.mark.parametrize(
    ("state", "index"), [(None, "ix_deliveries_endpoint_id_id"), ("exhausted", "ix_deliveries_exhausted")]
)
def test_a_page_is_a_range_of_an_index(engine: Engine, state: State | None, index: str) -> None:
    """This holds for a generic plan too."""
    insert(engine, 500)
    statement = deliveries._PAGE.format(condition=deliveries._IN_STATE[state])
    for number, name in enumerate((":endpoint_id", ":before", ":limit"), 1):
        statement = statement.replace(name, f"${number}")
    with engine.begin() as connection:
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN (GENERIC_PLAN) {statement}").scalars())
    assert f"Index Scan Backward using {index} on deliveries" in plan, plan
    assert "Sort" not in plan
    assert "Filter" not in plan


def test_exhausted_deliveries_are_paged(engine: Engine) -> None:
    insert(engine, 1000)
    with engine.begin() as connection:
        endpoint_id = connection.execute(text("SELECT id FROM webhook_endpoints LIMIT 1")).scalar_one()
        first, before = deliveries.list_page(connection, endpoint_id, state="exhausted", before=None, limit=6)
        rest, end = deliveries.list_page(connection, endpoint_id, state="exhausted", before=before, limit=6)
    ids = [delivery.id for delivery in first + rest]
    assert (len(first), len(rest), end) == (6, 4, None)
    assert ids == sorted(ids, reverse=True)
    assert {delivery.state for delivery in first + rest} == {"exhausted"}
