"""The measurements: the rate of a contender, its latency under load, and the warm-ups that choose settings."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Final

from benchmarks.speed import bare_loop, peer_systems
from benchmarks.speed.contender import Contender
from benchmarks.speed.cores import CORES
from benchmarks.speed.figures import Latency
from benchmarks.speed.images import Kind
from benchmarks.speed.load import Load
from benchmarks.speed.peers.tuning import Tuning
from benchmarks.speed.results import LoadedLatency
from benchmarks.speed.run import Run, run

Start = Callable[[], AbstractContextManager[Contender]]

_WARM_UP_IMAGES: Final = 32
_CALIBRATION_IMAGES: Final = 64
_TUNING_SECONDS: Final = 3.0
_SHARES: Final = (0.25, 0.5, 0.9)
_FEWEST: Final = 50
_PAUSE_SECONDS: Final = 1.0
_FIRSTS: Final = 1_000_000


@dataclass
class Session:
    """A started and warm contender.

    Attributes:
        rate: images per second, of the last run without an interval.
    """

    contender: Contender
    kind: Kind
    rate: float = 0.0
    _loads: int = field(default=0, init=False)

    @classmethod
    @contextmanager
    def started(cls, start: Start, kind: Kind) -> "Iterator[Session]":
        """Start a contender and send it images until it is warm and its rate is roughly known."""
        with start() as contender:
            session = cls(contender, kind)
            session.send(_WARM_UP_IMAGES)
            session.send(_CALIBRATION_IMAGES)
            yield session

    def send(self, number: int, interval: float | None = None) -> tuple[Run, list[float]]:
        """Send images that were not sent before. See `run.run`."""
        self._loads += 1
        first = self._loads * _FIRSTS
        measured, latencies = run(self.contender, Load(self.contender.target, self.kind, number, interval, first))
        if interval is None:
            self.rate = measured.rate
        return measured, latencies

    def send_for(self, seconds: float) -> Run:
        """Send images for about this time, as fast as they are answered."""
        return self.send(max(int(self.rate * seconds), _FEWEST))[0]


def measure_bare_loop(bundle: Path, kind: Kind, variant: bare_loop.Variant, seconds: float) -> Run:
    """Run the bare loop for about this time."""
    with bare_loop.running(bundle, kind, variant.arrangement) as loop:
        rate = loop.run(_CALIBRATION_IMAGES, variant.minibatch).rate
        return loop.run(max(int(rate * seconds), _FEWEST), variant.minibatch)


def measure_latencies(name: str, session: Session, capacity: float, seconds: float, burst: int) -> list[LoadedLatency]:
    """Measure a contender at shares of its own capacity, and in a burst.

    Each image is due at a fixed time, and its latency counts from then, even if the contender could not accept it.

    Args:
        capacity: images per second.
        seconds: of each share.
        burst: images that are all due at once.
    """
    rows = []
    for share in _SHARES:
        time.sleep(_PAUSE_SECONDS)
        offered = share * capacity
        number = max(int(offered * seconds), _FEWEST)
        _, latencies = session.send(number, 1 / offered)
        rows.append(LoadedLatency(name, f"{share * 100:.0f} % of capacity", number, offered, Latency.of(latencies)))
    time.sleep(_PAUSE_SECONDS)
    _, latencies = session.send(burst, 0.0)
    rows.append(LoadedLatency(name, f"burst of {burst:,}", burst, None, Latency.of(latencies)))
    return rows


def tune_litserve(bundle: Path, kind: Kind) -> Tuning:
    """Return the fastest settings of LitServe: first of its queues and servers, then of its batches."""
    servers = sorted({1, CORES})
    by_queue = [Tuning(fast_queue=fast, api_servers=number) for fast, number in product((False, True), servers)]
    rates = {tuning: _rate_of(bundle, kind, tuning) for tuning in by_queue}
    best = max(rates, key=rates.__getitem__)
    for size in (1, 4, 16):
        tuning = Tuning(size, best.batch_timeout, best.fast_queue, best.api_servers)
        rates[tuning] = _rate_of(bundle, kind, tuning)
    return max(rates, key=rates.__getitem__)


def _rate_of(bundle: Path, kind: Kind, tuning: Tuning) -> float:
    with Session.started(lambda: peer_systems.litserve(bundle, tuning), kind) as session:
        return session.send_for(_TUNING_SECONDS).rate
