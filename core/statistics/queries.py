"""The SQL of statistics: what is counted already is added up, and the rest is counted when it is read."""

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, Select, func, literal, select, text

from core.inspection.id_ranges import just_after, just_before
from core.inspection.review_decisions import decisions
from core.statistics.counting import KEY_OF_INSPECTION, UNCOUNTED, State, ceil, floor
from core.tables import Timestamp, inspections, reviews

# After a burst, the planner does not know yet how many entries are uncounted. A join could read all inspections for
# each of them, so each inspection is looked up by its id: OFFSET keeps the planner from making a join of it.
_BY_ID = "(SELECT * FROM inspections AS one WHERE one.id = uncounted.inspection_id OFFSET 0) AS inspections"


@dataclass(frozen=True)
class Query:
    """Which inspections to count.

    Attributes:
        edges: of the buckets, in UTC, ascending, at least two; see `core.statistics.buckets.find_edges`.
    """

    recipe_ids: Sequence[int]
    line_id: str | None
    station_id: str | None
    edges: Sequence[dt.datetime]

    @property
    def since(self) -> dt.datetime:
        return self.edges[0]

    @property
    def until(self) -> dt.datetime:
        return self.edges[-1]

    @property
    def fits_counts(self) -> bool:
        """Whether each edge between two buckets is one between two periods of the counts."""
        return all(edge == floor(edge) for edge in self.edges[1:-1])

    def parameters(self) -> dict[str, Any]:
        """Return the parameters that all queries have in common."""
        return {
            "recipe_ids": list(self.recipe_ids),
            "line_id": self.line_id,
            "station_id": self.station_id,
            "edges": list(self.edges),
            **_period("", self.since, self.until),
        }

    @property
    def at_place(self) -> str:
        """The conditions on line and station, each after an AND."""
        names = (name for name in ("line_id", "station_id") if getattr(self, name) is not None)
        return "".join(f" AND {name} = :{name}" for name in names)

    @property
    def where(self) -> str:
        """The conditions on recipe, line and station."""
        return f"recipe_id = ANY(CAST(:recipe_ids AS bigint[])){self.at_place}"


def _period(prefix: str, since: dt.datetime, until: dt.datetime) -> dict[str, Any]:
    return {
        f"{prefix}since": since,
        f"{prefix}until": until,
        f"{prefix}first": just_before(since),
        f"{prefix}last": just_after(until),
    }


def _in_period(prefix: str = "") -> str:
    """Return the condition of a listing: ids begin with the time, so a time range limits the index scan, too."""
    return f"""id >= :{prefix}first AND id < :{prefix}last
        AND created_at >= :{prefix}since AND created_at < :{prefix}until"""


_BUCKET = "width_bucket({}, CAST(:edges AS timestamptz[])) AS bucket"
_GROUPS = "bucket, recipe_id, status, verdict, duration_bin"
_OF_INSPECTIONS = f"""
    SELECT {_GROUPS}, count(*) AS number FROM (
        SELECT {_BUCKET.format("created_at")}, {KEY_OF_INSPECTION} FROM {{table}} WHERE {{where}}
    ) AS inspection GROUP BY {_GROUPS}
"""  # noqa: S608 - the expressions are constants
_COUNTED = f"""
    SELECT {_BUCKET.format("begins_at")}, recipe_id, status, verdict, duration_bin, number FROM inspection_counts
    WHERE {{where}} AND begins_at >= :counted_since AND begins_at < :counted_until
"""  # noqa: S608 - the expressions are constants
_IN_FLIGHT = f"""
    SELECT {_BUCKET.format("created_at")}, recipe_id, state AS status, NULL AS verdict,
        CAST(NULL AS smallint) AS duration_bin, 1 AS number
    FROM work WHERE {{where}} AND {_in_period()}
"""  # noqa: S608 - the expressions are constants


def counts(query: Query, state: State) -> tuple[str, dict[str, Any]]:
    """Return the query of the numbers of inspections by bucket, recipe, status, verdict and bin of the duration."""
    where = query.where
    branches, parameters = [_IN_FLIGHT.format(where=where)], query.parameters()
    counted = _counted_period(query, state)
    if counted is not None:
        branches += [
            _COUNTED.format(where=where),
            _OF_INSPECTIONS.format(
                table=f"{UNCOUNTED} CROSS JOIN LATERAL {_BY_ID}",
                where=f"{where} AND created_at >= :counted_since AND created_at < :counted_until",
            ),
        ]
        parameters |= {"position": state.position, "counted_since": counted[0], "counted_until": counted[1]}
    for number, (since, until) in enumerate(_other_periods(query, counted)):
        prefix = f"read_{number}_"
        branches.append(_OF_INSPECTIONS.format(table="inspections", where=f"{where} AND {_in_period(prefix)}"))
        parameters |= _period(prefix, since, until)
    union = " UNION ALL ".join(branches)
    return f"SELECT {_GROUPS}, sum(number)::bigint AS number FROM ({union}) AS part GROUP BY {_GROUPS}", parameters  # noqa: S608 - see above


def _counted_period(query: Query, state: State) -> tuple[dt.datetime, dt.datetime] | None:
    """Return the part of the period whose counts can be added up, or None."""
    if state.complete_from is None or not query.fits_counts:
        return None
    since, until = ceil(max(query.since, state.complete_from)), floor(query.until)
    return (since, until) if since < until else None


def _other_periods(
    query: Query, counted: tuple[dt.datetime, dt.datetime] | None
) -> Iterator[tuple[dt.datetime, dt.datetime]]:
    """Yield the parts of the period in which every inspection is read."""
    since, until = (query.until, query.until) if counted is None else counted
    if query.since < since:
        yield query.since, since
    if until < query.until:
        yield until, query.until


def newest_ng(query: Query) -> str:
    """Return the query of the newest inspection of each recipe that is `ng` by the machine's verdict."""
    return f"""
        SELECT recipe_id, newest.id FROM unnest(CAST(:recipe_ids AS bigint[])) AS _(recipe_id), LATERAL (
            SELECT id FROM inspections
            WHERE inspections.recipe_id = _.recipe_id AND verdict = 'ng'{query.at_place} AND {_in_period()}
            ORDER BY id DESC LIMIT 1
        ) AS newest
    """  # noqa: S608 - the expressions are constants


def reviewed(query: Query) -> Select[Any]:
    """Return the query of the numbers of reviewed inspections by bucket, recipe, and verdict before and after."""
    first, last = just_before(query.since), just_after(query.until)
    in_period = (reviews.c.inspection_id >= first, reviews.c.inspection_id < last)
    newest = decisions(*in_period).subquery("newest")
    bucket = func.width_bucket(inspections.c.created_at, literal(list(query.edges), ARRAY(Timestamp)))
    places = {name: getattr(query, name) for name in ("line_id", "station_id")}
    return (
        select(
            bucket.label("bucket"),
            inspections.c.recipe_id,
            inspections.c.verdict,
            newest.c.verdict.label("reviewed"),
            func.count().label("number"),
        )
        .join(newest, newest.c.inspection_id == inspections.c.id)
        .where(
            inspections.c.recipe_id.in_(query.recipe_ids),
            inspections.c.created_at >= query.since,
            inspections.c.created_at < query.until,
            *(inspections.c[name] == place for name, place in places.items() if place is not None),
        )
        .group_by(text("1"), inspections.c.recipe_id, inspections.c.verdict, newest.c.verdict)
    )
