"""The feed: no entry is skipped or repeated, and a restored database is detected."""

import base64
import datetime as dt
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from core import partitions
from core.errors import Code, Refused
from core.feed import consumers, feed
from core.feed.feed import Cursor
from core.partitions import first_id_of
from core.queue import finishing
from linewatch.server.embedded.servers import EmbeddedServers
from migrations.__main__ import migrate
from tests.fixtures.feed_reading import append_entries, commit_entries, cursor_refusal, read_all
from tests.fixtures.queued_work import claim, make_recipe, make_version, passed, submit

READER = consumers.Reader("key:mes", is_admin=False)


@given(st.integers(0, 2**62 - 1), st.integers(0, 2**62), st.integers(0, 2**62))
def test_a_cursor_is_read_back(epoch: int, number: int, numbered_at: int) -> None:
    cursor = Cursor(epoch, number, numbered_at)
    assert Cursor.parse(str(cursor)) == cursor
    assert Cursor.from_bytes(bytes(cursor)) == cursor


@given(st.text(max_size=40) | st.binary(max_size=30).map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_an_invalid_cursor_is_refused(cursor_text: str) -> None:
    def parsed() -> str:
        try:
            return str(Cursor.parse(cursor_text))
        except Refused as error:
            return error.code

    assert parsed() in (cursor_text, Code.INVALID_CURSOR)


def test_each_final_inspection_has_one_entry(engine: Engine) -> None:
    with engine.begin() as connection:
        recipe_id = make_recipe(connection)
        make_version(connection)
        ids = submit(connection, 3)
        first, *_ = claim(connection, recipe_id, ids[:2])
        submit(connection, 1, deadline_ms=1)
        finishing.finish(connection, [passed(first)])
        finishing.finish(connection, [passed(first)])
        finishing.cancel(connection, ids[2])
    time.sleep(0.01)
    with engine.begin() as connection:
        [overdue] = finishing.fail_overdue(connection).inspections
    ids_read, _ = read_all(engine)
    assert ids_read == [ids[0], ids[2], overdue]


def test_an_open_transaction_is_not_skipped_and_does_not_block_others(engine: Engine) -> None:
    before = commit_entries(engine, 2)
    with engine.connect() as slow, slow.begin():
        late = append_entries(slow, 2)  # has its place in the order of insertion, but is not committed
        meanwhile = commit_entries(engine, 3)
        ids, cursor = read_all(engine)
        assert ids == before + meanwhile
        more = commit_entries(engine, 1)
        ids, cursor = read_all(engine, cursor)
        assert ids == more
    assert read_all(engine, cursor)[0] == late
    assert sorted(read_all(engine)[0]) == sorted(before + meanwhile + more + late)


def test_concurrent_readers_get_each_entry_once(engine: Engine) -> None:
    """Transactions of different lengths, some rolled back, run while several readers number and read entries."""
    written: list[UUID] = []
    writers_ended = threading.Event()

    def write(seed: int) -> None:
        random = Random(seed)
        for _ in range(25):
            with engine.connect() as connection, connection.begin() as transaction:
                ids = append_entries(connection, random.randint(1, 20))
                time.sleep(random.choice([0, 0, 0.001, 0.02]))
                if random.random() < 0.2:
                    transaction.rollback()
                else:
                    written.extend(ids)

    def read(limit: int) -> list[UUID]:
        ids: list[UUID] = []
        cursor = None
        while True:
            last = writers_ended.is_set()
            some, cursor = read_all(engine, cursor, limit=limit)
            ids += some
            if last:
                return ids

    with ThreadPoolExecutor(9) as pool:
        readers = [pool.submit(read, limit) for limit in (1, 7, 1000)]
        writers = [pool.submit(write, seed) for seed in range(6)]
        for writer in writers:
            writer.result()
        writers_ended.set()
        read_ids = [reader.result() for reader in readers]
    assert read_ids[0] == read_ids[1] == read_ids[2]
    assert Counter(read_ids[0]) == Counter(written)
    with engine.begin() as connection:
        numbers = connection.execute(text("SELECT number FROM feed ORDER BY number")).scalars().all()
    assert list(numbers) == list(range(1, len(written) + 1))


def test_a_partial_page_leads_to_the_end_also_for_one_recipe(engine: Engine) -> None:
    with engine.begin() as connection:
        quiet, busy = make_recipe(connection, "quiet"), make_recipe(connection, "busy")
        mine = append_entries(connection, recipe_id=quiet)
        append_entries(connection, 5, recipe_id=busy)
        feed.append(connection, [(mine[0], quiet)], "reviewed")
    with engine.begin() as connection:
        state = feed.number_entries(connection)
        begin = feed.start_cursor(connection, state, None)
        page = feed.read(connection, state, begin, limit=10, recipe_id=quiet)
        assert [entry.inspection_id for entry in page.entries] == mine
        assert page.next_cursor.number == state.newest == 7
        page = feed.read(connection, state, begin, limit=10, recipe_id=quiet, reviews=True)
        assert [entry.event for entry in page.entries] == ["final", "reviewed"]
        assert feed.start_cursor(connection, state, "now") == page.next_cursor
        assert feed.start_cursor(connection, state, "oldest") == begin


def test_a_backlog_is_numbered_in_chunks(engine: Engine) -> None:
    commit_entries(engine, 25)
    with engine.begin() as connection:
        assert [feed.number_entries(connection, at_most=10).newest for _ in range(4)] == [10, 20, 25, 25]


def test_a_cursor_before_the_oldest_entry_is_refused_as_expired(engine: Engine) -> None:
    ids = commit_entries(engine, 6)
    with engine.begin() as connection:
        state = feed.number_entries(connection)
        first = feed.read(connection, state, feed.start_cursor(connection, state, None), limit=1).next_cursor
        connection.execute(text("UPDATE feed SET numbered_at = now() - interval '3 days' WHERE number <= 4"))
        fourth = feed.read(connection, state, feed.start_cursor(connection, state, None), limit=4).next_cursor
        assert feed.expire(connection, days=4, at_most=9) == 0
        assert [feed.expire(connection, days=2, at_most=3) for _ in range(3)] == [3, 1, 0]
    assert read_all(engine)[0] == ids[4:]
    assert read_all(engine, str(fourth))[0] == ids[4:]
    error = cursor_refusal(engine, str(first))
    assert error.code is Code.CURSOR_EXPIRED
    assert "3 entries" in error.detail
    assert read_all(engine, error.members["resume_after"])[0] == ids[4:]
    assert commit_entries(engine) == read_all(engine, str(fourth))[0][2:]
    with engine.begin() as connection, pytest.raises(Refused, match="older than the feed keeps"):
        feed.read(connection, state, first, limit=1)  # expires between the check and the read


def test_a_consumer_resumes_after_the_acknowledged_entry(engine: Engine) -> None:
    commit_entries(engine, 5)
    with engine.begin() as connection:
        state = feed.number_entries(connection)
        assert consumers.find(connection, "mes") is None
        page = feed.read(connection, state, feed.start_cursor(connection, state, None), limit=3)
        first, third = page.entries[0].cursor, page.next_cursor
        assert consumers.acknowledge(connection, state, "mes", str(third), reader=READER).cursor == third
    with engine.begin() as connection:
        assert (
            consumers.acknowledge(connection, state, "mes", str(first), reader=READER).cursor == third
        )  # late, changes nothing
        assert consumers.acknowledge(connection, state, "mes", "oldest", reader=READER).cursor == third
        assert consumers.acknowledge(connection, state, "mes", "now", reader=READER).cursor.number == 5
        assert [consumer.name for consumer in consumers.list_visible(connection, READER)] == ["mes"]
        with pytest.raises(Refused, match="not a cursor"):
            consumers.acknowledge(connection, state, "mes", "nonsense", reader=READER)
        consumers.delete_consumer(connection, "mes", reader=READER)
        with pytest.raises(Refused, match="no consumer"):
            consumers.delete_consumer(connection, "mes", reader=READER)


def test_an_old_snapshot_does_not_slow_down_numbering(engine: Engine) -> None:
    """During a dump, numbered rows cannot be vacuumed; the search for new entries must not read them."""

    def buffers() -> int:
        with engine.begin() as connection:
            plan = connection.execute(text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {feed._STATUS.text}")).scalar_one()
        hit_blocks: int = plan[0]["Plan"]["Shared Hit Blocks"]
        return hit_blocks

    commit_entries(engine, 100)
    read_all(engine)
    with engine.connect() as dump, dump.begin():
        dump.execute(text("SET LOCAL transaction_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"))
        dump.execute(text("DECLARE held CURSOR FOR SELECT * FROM recipes"))
        commit_entries(engine, 100)
        read_all(engine)
        before = buffers()
        for _ in range(20):
            commit_entries(engine, 1000)
            read_all(engine)
        with engine.begin() as connection:
            dead = connection.execute(text("SELECT pg_relation_size('feed_unnumbered') / 8192")).scalar_one()
        assert dead > 150
        assert buffers() < before + 30
        last = commit_entries(engine, 1)
    assert read_all(engine)[0][-1:] == last


def test_concurrent_first_acknowledgements_create_one_consumer(engine: Engine) -> None:
    commit_entries(engine, 40)
    with engine.begin() as connection:
        state = feed.number_entries(connection)
        page = feed.read(connection, state, feed.start_cursor(connection, state, None), limit=40)
    cursors = [entry.cursor for entry in page.entries]
    Random(5).shuffle(cursors)

    def acknowledge(cursor: Cursor) -> None:
        with engine.begin() as connection:
            consumers.acknowledge(connection, state, "mes", str(cursor), reader=READER)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(acknowledge, cursors))
    with engine.begin() as connection:
        kept = consumers.find(connection, "mes")
        assert kept is not None
        assert kept.cursor.number == 40


def test_news_concern_only_readers_of_matching_entries(engine: Engine) -> None:
    with engine.begin() as connection:
        append_entries(connection, recipe_id=1)
        feed.append(connection, [(uuid4(), 2)], "reviewed")
    with engine.begin() as connection:
        new_entries = feed.number_and_summarise(connection, 0)
        assert [new_entries.concerns(of, reviews=reviews) for of in (None, 1, 2, 3) for reviews in (False, True)] == [
            True, True, True, True, False, True, False, False,
        ]  # fmt: skip
        unchanged = feed.number_and_summarise(connection, new_entries.newest)
        assert not unchanged.concerns(None, reviews=True)
        append_entries(connection, feed.MAX_SUMMARISED + 1)
        assert feed.number_and_summarise(connection, 0).concerns(
            77, reviews=False
        )  # too many entries to check each one


def test_an_ordinary_role_can_read_the_feed(engine: Engine) -> None:
    """Detecting a restore needs no superuser rights."""
    role = f"plain_{uuid4().hex}"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {role}"))
        connection.execute(text(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"))
        connection.execute(text(f"SET ROLE {role}"))
        append_entries(connection)
        assert feed.number_entries(connection).newest == 1
        connection.execute(text("RESET ROLE"))
        connection.execute(text(f"DROP OWNED BY {role}; DROP ROLE {role}"))


INSERT_OF_BEFORE = """
    INSERT INTO inspections (id, recipe_id, priority, metadata, image_day, image_sha256, status, reasons, timings_ms,
        finished_at)
    VALUES (:id, 1, 'live', '{}', now(), '', 'cancelled', '{}', '{}', :finished_at)
"""


def test_the_migration_enters_earlier_inspections_into_the_feed(servers: EmbeddedServers, tmp_path: Path) -> None:
    """The migration enters the inspections of the last 30 days in the order in which they became final.

    Inspections that workers of the previous version finish afterwards are entered too.
    """
    from alembic import command
    from alembic.config import Config

    url = make_url(servers.database_url)
    name = f"older_{uuid4().hex}"
    with create_engine(url, poolclass=NullPool).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine = create_engine(url.set(database=name), poolclass=NullPool)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[4] / "migrations"))
    now = dt.datetime.now(dt.UTC)
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        partitions.ensure(engine)
        for days in (40, 1, 2):
            with connection.begin():
                then = now - dt.timedelta(days=days)
                connection.execute(text(INSERT_OF_BEFORE), {"id": first_id_of(then), "finished_at": then})
    migrate(engine)
    lately = [first_id_of(now - dt.timedelta(days=days)) for days in (2, 1)]
    assert read_all(engine)[0] == lately
    with engine.begin() as connection:
        connection.execute(text(INSERT_OF_BEFORE), {"id": first_id_of(now), "finished_at": now})
    assert read_all(engine)[0] == [*lately, first_id_of(now)]
    engine.dispose()


def test_reading_a_page_uses_an_index(engine: Engine) -> None:
    """The plan of a page is an index range, for any size of the feed and for rare recipes."""
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO feed (number, inspection_id, recipe_id, event, settled)
                SELECT n, uuidv7(), CASE WHEN n % 1000 = 0 THEN 3 ELSE 1 END, 'final', 0
                FROM generate_series(1, 20000) AS n
            """)
        )
        connection.execute(text("ANALYZE feed"))
        for narrowed, index in (("", "pk_feed"), ("AND recipe_id = 3", "ix_feed_recipe_id_number")):
            plan = "\n".join(
                connection.execute(
                    text("EXPLAIN " + feed._READ.format(filters=f"AND event = 'final' {narrowed}")),
                    {"after": 15000, "newest": 20000, "limit": 100},
                ).scalars()
            )
            assert f"Index Scan using {index} on feed\n" in plan.replace("  (cost", "\n"), plan
            assert "Seq Scan on feed " not in plan
            assert plan.count("Sort") <= 2  # sorts the page itself by its key
