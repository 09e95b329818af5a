"""`GET /v1/inspections/export` streams a listing of any length as one file, in constant memory."""

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
from core.settings import Settings
from linewatch.server.embedded.servers import EmbeddedServers
from tests.fixtures.api_process import Api, api_process, running_api
from tests.fixtures.inserted_inspections import insert_inspections

MIB = 1024 * 1024


@pytest.fixture
def api(settings: Settings) -> Iterator[Api]:
    with api_process(settings, output=Path(os.devnull)) as running:
        yield running


@pytest.fixture
def http(api: Api) -> httpx.Client:
    return api.http


def listed(http: httpx.Client, **params: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = http.get("/v1/inspections", params={"limit": "1000", **params, **cursor}).json()
        items += page["items"]
        if page["next_cursor"] is None:
            return items
        cursor = {"cursor": page["next_cursor"]}


def flat(inspection: dict[str, Any]) -> dict[str, Any]:
    """Return the expected row of an inspection of the listing."""
    newest = inspection["reviews"][-1] if inspection["reviews"] else {}
    model, error = inspection["model"] or {}, inspection["error"] or {}
    return {
        **{column.name: inspection[column.name] for column in exports.COLUMNS if column.name in inspection},
        "reviewer": newest.get("reviewer"), "review_reason": newest.get("reason"),
        "reviewed_at": newest.get("created_at"), "model_version": model.get("version"),
        "model_sha256": model.get("sha256"), "error_code": error.get("code"), "error_detail": error.get("detail"),
        **{f"image_{name}": value for name, value in inspection["image"].items()},
        **{f"{name}_ms": inspection["timings_ms"].get(name) for name in ("queue", "load", "decode", "score", "total")},
    }  # fmt: skip


def as_cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool() | dict() | list():
            return json.dumps(value, ensure_ascii=False)
    return str(value)


def test_an_export_contains_what_the_listing_returns(http: httpx.Client, engine: Engine) -> None:
    insert_inspections(engine, 2500)
    insert_inspections(engine, 10, recipe="other")
    expected = [flat(inspection) for inspection in listed(http, recipe="ring", lot_id="L-1")]
    assert len(expected) == 1250
    assert expected[0]["created_at"] > expected[-1]["created_at"]
    assert {item["effective_verdict"] for item in expected} == {"ok", "ng"}

    answer = http.get("/v1/inspections/export", params={"recipe": "ring", "lot_id": "L-1", "format": "csv"})
    assert answer.headers["Content-Type"].startswith("text/csv")
    header, *rows = csv.reader(io.StringIO(answer.content.decode(), newline=""), strict=True)
    assert rows == [[as_cell(item[name]) for name in header] for item in expected]

    answer = http.get("/v1/inspections/export", params={"recipe": "ring", "lot_id": "L-1", "format": "parquet"})
    assert answer.headers["Content-Type"] == "application/vnd.apache.parquet"
    table = pq.read_table(io.BytesIO(answer.content))
    assert table.column_names == header
    assert [as_cell(record["reasons"]) for record in table.to_pylist()] == [
        row[header.index("reasons")] for row in rows
    ]
    for name in ("id", "part_id", "anomaly_score", "model_version", "reviewer"):
        assert table.column(name).to_pylist() == [item[name] for item in expected]


def test_the_file_name_describes_the_content(http: httpx.Client, engine: Engine) -> None:
    insert_inspections(engine, 1)
    for params, name in (
        ({"recipe": "ring", "format": "parquet"}, r"inspections-ring-\d{8}T\d{6}Z\.parquet"),
        ({}, r"inspections-\d{8}T\d{6}Z\.csv"),
    ):
        disposition = http.get("/v1/inspections/export", params=params).headers["Content-Disposition"]
        assert re.fullmatch(f'attachment; filename="{name}"', disposition), disposition


def test_an_empty_export_is_a_valid_file(http: httpx.Client) -> None:
    lines = http.get("/v1/inspections/export", params={"lot_id": "nobody"}).content
    assert lines.decode() == ",".join(column.name for column in exports.COLUMNS) + "\r\n"
    answer = http.get("/v1/inspections/export", params={"lot_id": "nobody", "format": "parquet"})
    assert pq.read_table(io.BytesIO(answer.content)).num_rows == 0


def test_an_invalid_export_request_is_refused(http: httpx.Client) -> None:
    for params in ({"format": "xlsx"}, {"verdict": "maybe"}, {"cursor": "x"}, {"part_id": ""}):
        answer = http.get("/v1/inspections/export", params=params)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field"), params
    unknown = http.get("/v1/inspections/export", params={"recipe": "nobody"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "recipe_unknown")


def test_no_page_is_read_twice_or_skipped(engine: Engine) -> None:
    insert_inspections(engine, 25)
    newest_first = [inspection.id for page in exports.pages(engine, Filters(), size=4) for inspection in page]
    assert len(newest_first) == 25
    assert newest_first == sorted(newest_first, reverse=True)


def test_no_transaction_is_open_between_two_pages(engine: Engine) -> None:
    insert_inspections(engine, 10)
    pages = exports.pages(engine, Filters(), size=4)
    ids: list[UUID] = []
    for page in pages:
        ids += [inspection.id for inspection in page]
        with engine.begin() as connection:
            # The lock is refused while any transaction that has read the table is open.
            connection.execute(text("LOCK TABLE inspections, work, reviews IN ACCESS EXCLUSIVE MODE"))
    assert len(ids) == 10


def test_memory_does_not_grow_with_the_length_of_an_export(api: Api, http: httpx.Client, engine: Engine) -> None:
    insert_inspections(engine, 12_000, metadata_bytes=4096)
    insert_inspections(engine, 4_000, recipe="short", metadata_bytes=4096)
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


def test_a_download_is_aborted_if_the_database_becomes_unavailable(
    settings: Settings, engine: Engine, servers: EmbeddedServers, tmp_path: Path
) -> None:
    insert_inspections(engine, 20_000, metadata_bytes=2048)  # much more than fits into socket buffers
    engine.dispose()
    log = tmp_path / "log"
    with api_process(settings, output=log) as api:
        for kind in exports.Format:
            try:
                with (  # noqa: PT012 - the chunks before the abort are needed
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
    output = log.read_text()
    assert output.count("aborted a download: database unavailable: ") == len(exports.Format), output
    assert "Traceback" not in output


def count_waiting_connections(engine: Engine) -> int:
    """Return the number of connections that wait for a lock."""
    with engine.begin() as connection:
        waiting: int = connection.execute(
            text(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        ).scalar_one()
        return waiting


def test_exports_and_other_requests_do_not_block_each_other_or_authentication(
    settings: Settings, engine: Engine
) -> None:
    with engine.begin() as connection:
        export, listing, reading = (keys.create(connection, name, ["read"], actor="test")[1] for name in "elr")
    variables = {"LINEWATCH_AUTH": "on"}

    def get(path: str, key: str) -> httpx.Response:
        return client.get(path, headers={"Authorization": f"Bearer {key}"})

    with running_api(settings, **variables) as client, ThreadPoolExecutor(32) as clients:
        with create_unbounded(settings, name="slow").begin() as slow:
            slow.execute(text("LOCK TABLE inspections IN ACCESS EXCLUSIVE MODE"))
            downloads = [
                clients.submit(get, "/v1/inspections/export?format=parquet", export) for _ in range(EXPORTS + 1)
            ]
            refused = next(as_completed(downloads)).result()
            assert (refused.status_code, refused.json()["code"]) == (503, "busy")
            assert int(refused.headers["Retry-After"]) > 0
            assert get("/v1/recipes", export).status_code == 200
            listed = [clients.submit(get, "/v1/inspections", listing) for _ in range(ROUTE_THREADS + 2)]
            deadline = time.monotonic() + 30
            while count_waiting_connections(engine) < EXPORT_THREADS + ROUTE_THREADS:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            unknown = get(f"/v1/batches/{UUID(int=0)}", reading)  # with a key that is not cached yet
            assert unknown.status_code == 404
        answers = sorted(future.result().status_code for future in downloads)
        assert answers == [200] * EXPORTS + [503]
        assert {future.result().status_code for future in listed} == {200}
        assert get("/v1/inspections/export", export).status_code == 200  # the slots are free again
