"""`GET /v1/inspections/export`: the listing as one file, of any length, in constant memory."""

import csv
import io
import json
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, text

from api.services import EXPORT_THREADS, EXPORTS, ROUTE_THREADS
from core.access import keys
from core.database import create_unbounded
from core.documents import exports
from core.inspection.inspections import Filters
from core.models import recipes
from core.settings import Settings
from linewatch.server.embedded.servers import EmbeddedServers
from tests.fixtures.api_process import Api, api_process, running_api

MIB = 1024 * 1024


_INSERT = text("""
    INSERT INTO inspections (id, recipe_id, priority, part_id, lot_id, metadata, image_day, image_sha256,
        created_at, attempt, started_at, threshold, status, anomaly_score, verdict, reasons, finished_at, timings_ms)
    SELECT uuidv7(make_interval(secs => i)), :recipe_id, 'live', 'SN, "' || i || E'"\r\n', 'L-' || i % 2,
        jsonb_build_object('note', repeat(md5(i::text), :times)), '2026-01-02', '\\x01',
        now() + make_interval(secs => i), 1, now(), 0.1, 'completed', i / 7.0,
        CASE WHEN i % 3 = 0 THEN 'review' ELSE 'ng' END, ARRAY['input_dark', 'input_size'], now(),
        '{"score": 2.5, "total": 24.1}'
    FROM generate_series(CAST(:first AS integer), CAST(:last AS integer)) AS i
""")


def insert(engine: Engine, number: int, *, recipe: str = "ring", metadata_bytes: int = 32) -> None:
    """Finished inspections of a recipe, accepted a second after the other, every third with two reviews."""
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO images VALUES ('2026-01-02', '\\x01', 'image/png', 4, 3, 10) ON CONFLICT DO NOTHING")
        )
        recipe_id = recipes.create(connection, recipe, actor="test").id
        for first in range(1, number + 1, 2000):  # no statement may take long
            connection.execute(
                _INSERT,
                {
                    "recipe_id": recipe_id,
                    "first": first,
                    "last": min(number, first + 1999),
                    "times": max(1, metadata_bytes // 32),
                },
            )
        connection.execute(
            text("""
                INSERT INTO reviews (inspection_id, verdict, reviewer, reason, actor)
                SELECT id, said.verdict, 'Jo', said.reason, 'test' FROM inspections,
                    (VALUES ('ng', 'scratch'), ('ok', '=dust')) AS said(verdict, reason)
                WHERE inspections.verdict = 'review'
            """)
        )


@pytest.fixture
def api(settings: Settings) -> Iterator[Api]:
    with api_process(settings, output=Path(os.devnull)) as running:
        yield running


@pytest.fixture
def http(api: Api) -> httpx.Client:
    return api.http


def listed(http: httpx.Client, **params: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = http.get("/v1/inspections", params={"limit": "1000", **params, **cursor}).json()
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


def flat(one: dict[str, Any]) -> dict[str, Any]:
    """What a row must say of an inspection of the listing."""
    newest = one["reviews"][-1] if one["reviews"] else {}
    model, error = one["model"] or {}, one["error"] or {}
    return {
        **{column.name: one[column.name] for column in exports.COLUMNS if column.name in one},
        "reviewer": newest.get("reviewer"), "review_reason": newest.get("reason"),
        "reviewed_at": newest.get("created_at"), "model_version": model.get("version"),
        "model_sha256": model.get("sha256"), "error_code": error.get("code"), "error_detail": error.get("detail"),
        **{f"image_{name}": value for name, value in one["image"].items()},
        **{f"{name}_ms": one["timings_ms"].get(name) for name in ("queue", "load", "decode", "score", "total")},
    }  # fmt: skip


def as_cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool() | dict() | list():
            return json.dumps(value, ensure_ascii=False)
    return str(value)


def test_a_file_says_what_the_listing_says(http: httpx.Client, engine: Engine) -> None:
    insert(engine, 2500)
    insert(engine, 10, recipe="other")
    expected = [flat(one) for one in listed(http, recipe="ring", lot_id="L-1")]
    assert len(expected) == 1250
    assert expected[0]["created_at"] > expected[-1]["created_at"]
    assert {one["effective_verdict"] for one in expected} == {"ok", "ng"}

    answer = http.get("/v1/inspections/export", params={"recipe": "ring", "lot_id": "L-1", "format": "csv"})
    assert answer.headers["Content-Type"].startswith("text/csv")
    header, *rows = csv.reader(io.StringIO(answer.content.decode(), newline=""), strict=True)
    assert rows == [[as_cell(one[name]) for name in header] for one in expected]

    answer = http.get("/v1/inspections/export", params={"recipe": "ring", "lot_id": "L-1", "format": "parquet"})
    assert answer.headers["Content-Type"] == "application/vnd.apache.parquet"
    table = pq.read_table(io.BytesIO(answer.content))
    assert table.column_names == header
    assert [as_cell(one["reasons"]) for one in table.to_pylist()] == [row[header.index("reasons")] for row in rows]
    for name in ("id", "part_id", "anomaly_score", "model_version", "reviewer"):
        assert table.column(name).to_pylist() == [one[name] for one in expected]


def test_a_file_is_named_after_what_is_in_it(http: httpx.Client, engine: Engine) -> None:
    insert(engine, 1)
    for params, name in (
        ({"recipe": "ring", "format": "parquet"}, r"inspections-ring-\d{8}T\d{6}Z\.parquet"),
        ({}, r"inspections-\d{8}T\d{6}Z\.csv"),
    ):
        said = http.get("/v1/inspections/export", params=params).headers["Content-Disposition"]
        assert re.fullmatch(f'attachment; filename="{name}"', said), said


def test_nothing_is_a_file_too(http: httpx.Client) -> None:
    lines = http.get("/v1/inspections/export", params={"lot_id": "nobody"}).content
    assert lines.decode() == ",".join(column.name for column in exports.COLUMNS) + "\r\n"
    answer = http.get("/v1/inspections/export", params={"lot_id": "nobody", "format": "parquet"})
    assert pq.read_table(io.BytesIO(answer.content)).num_rows == 0


def test_what_is_no_export_is_refused(http: httpx.Client) -> None:
    for params in ({"format": "xlsx"}, {"verdict": "maybe"}, {"cursor": "x"}, {"part_id": ""}):
        answer = http.get("/v1/inspections/export", params=params)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field"), params
    unknown = http.get("/v1/inspections/export", params={"recipe": "nobody"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "recipe_unknown")


def test_no_page_is_read_twice_or_left_out(engine: Engine) -> None:
    insert(engine, 25)
    newest_first = [one.id for page in exports.pages(engine, Filters(), size=4) for one in page]
    assert len(newest_first) == 25
    assert newest_first == sorted(newest_first, reverse=True)


def test_no_transaction_is_open_between_two_pages(engine: Engine) -> None:
    insert(engine, 10)
    pages = exports.pages(engine, Filters(), size=4)
    seen: list[UUID] = []
    for page in pages:
        seen += [one.id for one in page]
        with engine.begin() as connection:
            # It would wait for any transaction that has read the table, up to the lock timeout.
            connection.execute(text("LOCK TABLE inspections, work, reviews IN ACCESS EXCLUSIVE MODE"))
    assert len(seen) == 10


def test_a_long_file_takes_no_more_memory_than_a_short_one(api: Api, http: httpx.Client, engine: Engine) -> None:
    insert(engine, 12_000, metadata_bytes=4096)
    insert(engine, 4_000, recipe="short", metadata_bytes=4096)
    process = psutil.Process(api.process.pid)
    for kind in exports.Format:
        http.get("/v1/inspections/export", params={"recipe": "short", "format": kind})
        read, most = 0, (before := process.memory_info().rss)
        with http.stream("GET", "/v1/inspections/export", params={"recipe": "ring", "format": kind}) as answer:
            for chunk in answer.iter_bytes():
                read += len(chunk)
                most = max(most, process.memory_info().rss)
        if kind == exports.Format.CSV:
            assert read > 48 * MIB
        assert most - before < 40 * MIB, kind


def test_a_database_that_goes_away_breaks_the_download_off(
    settings: Settings, engine: Engine, servers: EmbeddedServers, tmp_path: Path
) -> None:
    insert(engine, 20_000, metadata_bytes=2048)  # far more than what sockets hold
    engine.dispose()
    log = tmp_path / "log"
    with api_process(settings, output=log) as api:
        for kind in exports.Format:
            try:
                with (  # noqa: PT012 - what is read before it breaks off counts
                    api.http.stream("GET", "/v1/inspections/export", params={"format": kind}) as answer,
                    pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"),
                ):
                    assert answer.status_code == 200
                    chunks = answer.iter_raw()
                    next(chunks)
                    servers.postgres.stop()
                    for _ in chunks:
                        pass
                answer = api.http.get("/v1/inspections/export", params={"format": kind})
                assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
            finally:
                servers.postgres.start()
    said = log.read_text()
    assert said.count("aborted a download: database unavailable: ") == len(exports.Format), said
    assert "Traceback" not in said


def held_up(engine: Engine) -> int:
    """How many connections wait for a lock."""
    with engine.begin() as connection:
        waiting: int = connection.execute(
            text(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        ).scalar_one()
        return waiting


def test_exports_and_plain_routes_hold_up_neither_each_other_nor_the_guard(settings: Settings, engine: Engine) -> None:
    with engine.begin() as connection:
        export, listing, reading = (keys.create(connection, name, ["read"], actor="test")[1] for name in "elr")
    own = {"LINEWATCH_AUTH": "on"}

    def get(path: str, key: str) -> httpx.Response:
        return client.get(path, headers={"Authorization": f"Bearer {key}"})

    with running_api(settings, **own) as client, ThreadPoolExecutor(32) as clients:
        with create_unbounded(settings, name="slow").begin() as slow:
            slow.execute(text("LOCK TABLE inspections IN ACCESS EXCLUSIVE MODE"))
            asked = [clients.submit(get, "/v1/inspections/export?format=parquet", export) for _ in range(EXPORTS + 1)]
            refused = next(as_completed(asked)).result()
            assert (refused.status_code, refused.json()["code"]) == (503, "busy")
            assert int(refused.headers["Retry-After"]) > 0
            assert get("/v1/recipes", export).status_code == 200
            listed = [clients.submit(get, "/v1/inspections", listing) for _ in range(ROUTE_THREADS + 2)]
            deadline = time.monotonic() + 30
            while held_up(engine) < EXPORT_THREADS + ROUTE_THREADS:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            unknown = get(f"/v1/batches/{UUID(int=0)}", reading)  # with a key that nobody has looked up yet
            assert unknown.status_code == 404
        answers = sorted(one.result().status_code for one in asked)
        assert answers == [200] * EXPORTS + [503]
        assert {one.result().status_code for one in listed} == {200}
        assert get("/v1/inspections/export", export).status_code == 200  # the places are free again
