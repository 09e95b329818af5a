"""The number of images in the source of a run, counted before the run is created, within a time limit."""

import datetime as dt
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from psycopg.errors import QueryCanceled
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.sql.functions import now

from core.rescoring import runs, stored_inspections
from core.rescoring.requests import RunRequest, Source
from core.rescoring.stored_inspections import StoredSource
from core.storage import manifests
from core.storage.archive_roots import Archives, ArchiveUnavailable

MAX_SECONDS = 3.0
"""Counting stops after this time."""

_INSPECTIONS_AT_ONCE = 20_000
_NAMES_AT_ONCE = 1000


@dataclass(frozen=True)
class SourceCount:
    """The number of images counted; there may be more unless the count is `exact`."""

    images: int
    exact: bool


def count_images(
    engine: Engine, archives: Archives, request: RunRequest, *, max_seconds: float = MAX_SECONDS
) -> SourceCount:
    """Count the images that a run would score or compare. Stops after about `max_seconds`.

    Args:
        request: with a source from `core.rescoring.sources.resolve_source`.

    Raises:
        Refused: as when the run is created.
    """
    deadline = time.monotonic() + max_seconds
    with engine.begin() as connection:
        runs.ready_version(connection, request.recipe, request.model_version)
        moment: dt.datetime = connection.execute(select(now())).scalar_one()
    if request.source.where is None:
        return _count_archive(archives, request.source, deadline)
    source = StoredSource(request.recipe, request.source.where.resolve_age(moment), moment)
    return _count_inspections(engine, source, deadline)


def _count_inspections(engine: Engine, source: StoredSource, deadline: float) -> SourceCount:
    counted, after = 0, None
    while (seconds := deadline - time.monotonic()) > 0:
        try:
            with engine.begin() as connection:
                milliseconds = max(1, round(seconds * 1000))  # 0 would disable the timeout
                connection.execute(select(func.set_config("statement_timeout", f"{milliseconds}ms", True)))
                page = stored_inspections.count_page(connection, source, after, at_most=_INSPECTIONS_AT_ONCE)
        except OperationalError as error:
            if isinstance(error.orig, QueryCanceled):
                break
            raise
        counted, after = counted + page.inspections, page.last
        if after is None:
            return SourceCount(counted, exact=True)
    return SourceCount(counted, exact=False)


def _count_archive(archives: Archives, source: Source, deadline: float) -> SourceCount:
    counted = 0
    try:
        images = _list_archive(archives, source)
        while time.monotonic() < deadline:
            number = sum(1 for _ in islice(images, _NAMES_AT_ONCE))
            counted += number
            if number < _NAMES_AT_ONCE:
                return SourceCount(counted, exact=True)
    except ArchiveUnavailable:
        pass  # a run would wait for its archive
    return SourceCount(counted, exact=False)


def _list_archive(archives: Archives, source: Source) -> Iterator[Any]:
    """List the images of a folder, or the entries of a manifest."""
    if source.folder is not None:
        return archives.locate(source.folder).images(None)
    assert source.manifest is not None  # noqa: S101 - a source is exactly one of the three
    location, name = archives.locate_file(source.manifest)
    return manifests.entries(location, name, None)
