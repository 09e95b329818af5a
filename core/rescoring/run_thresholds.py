"""The thresholds of a run. They are fixed when the run is created, so they are the same for every image of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from sqlalchemy import Connection

from core.models import thresholds
from core.models.thresholds import Threshold


@dataclass(frozen=True)
class RunThreshold:
    """A threshold and its review threshold, in the unit of the model version's score."""

    threshold: float
    review_threshold: float | None = None


@dataclass(frozen=True)
class RunThresholds:
    """The general threshold, and those of stations that have their own."""

    general: RunThreshold
    stations: dict[str, RunThreshold] = field(default_factory=dict)

    @classmethod
    def in_force(cls, connection: Connection, model_version_id: int) -> Self:
        """The thresholds that are in force for a model version now."""
        return cls.from_thresholds(thresholds.in_force(connection, model_version_id))

    @classmethod
    def from_thresholds(cls, in_force: Iterable[Threshold]) -> Self:
        """Convert the thresholds in force of a model version."""
        by_station = {
            threshold.station_id: RunThreshold(threshold.threshold, threshold.review_threshold)
            for threshold in in_force
        }
        general = by_station.pop(None)
        return cls(general, {station: limit for station, limit in by_station.items() if station is not None})

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(
            RunThreshold(**stored["general"]),
            {station: RunThreshold(**limit) for station, limit in stored["stations"].items()},
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON that is stored with the run."""
        return {
            "general": vars(self.general),
            "stations": {station: vars(limit) for station, limit in self.stations.items()},
        }

    def for_station(self, station_id: str | None) -> RunThreshold:
        """Return the threshold for images of a station; None stands for images without a station."""
        return self.general if station_id is None else self.stations.get(station_id, self.general)
