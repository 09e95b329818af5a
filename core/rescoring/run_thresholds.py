"""The thresholds that judge a run: fixed when it is made, so that its first and its last image are judged alike."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from sqlalchemy import Connection

from core.models import thresholds
from core.models.thresholds import Threshold


@dataclass(frozen=True)
class RunThreshold:
    """A threshold with its review threshold, in the unit of the model version's score."""

    threshold: float
    review_threshold: float | None = None


@dataclass(frozen=True)
class RunThresholds:
    """The general threshold, and those of stations that have their own."""

    general: RunThreshold
    stations: dict[str, RunThreshold] = field(default_factory=dict)

    @classmethod
    def in_force(cls, connection: Connection, model_version_id: int) -> Self:
        """Those of a version as they are now."""
        return cls.made_of(thresholds.in_force(connection, model_version_id))

    @classmethod
    def made_of(cls, in_force: Iterable[Threshold]) -> Self:
        """Of the thresholds in force of a version."""
        limits = {one.station_id: RunThreshold(one.threshold, one.review_threshold) for one in in_force}
        general = limits.pop(None)
        return cls(general, {station: limit for station, limit in limits.items() if station is not None})

    @classmethod
    def read(cls, stored: dict[str, Any]) -> Self:
        return cls(
            RunThreshold(**stored["general"]),
            {station: RunThreshold(**limit) for station, limit in stored["stations"].items()},
        )

    def stored(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "general": vars(self.general),
            "stations": {station: vars(limit) for station, limit in self.stations.items()},
        }

    def of(self, station_id: str | None) -> RunThreshold:
        """What judges an image of a station, or of none."""
        return self.general if station_id is None else self.stations.get(station_id, self.general)
