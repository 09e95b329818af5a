"""The queries by which KEDA scales the scoring workers, on the real schema."""

from sqlalchemy import Engine, text

from tests.fixtures import helm_chart


def test_they_count_what_waits_and_how_long(engine: Engine) -> None:
    scaled = helm_chart.rendered({"keda": {"enabled": True}})["ScaledObject/line-scoring-cpu"]
    number, seconds = (trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"])
    with engine.begin() as connection:
        assert [float(connection.execute(text(query)).scalar_one()) for query in (number, seconds)] == [0, 0]
        connection.execute(
            text("""
                INSERT INTO work (id, recipe_id, priority, metadata, image_day, image_sha256, attempt, created_at)
                SELECT uuidv7(), 1, priority, '{}', current_date, '', 0, now() - age
                FROM (VALUES ('live', interval '40 seconds'), ('live', interval '1 second'), ('bulk', interval '1 day'))
                    AS waiting(priority, age)
            """)
        )
        assert connection.execute(text(number)).scalar_one() == 3
        assert 40 <= float(connection.execute(text(seconds)).scalar_one()) < 60
