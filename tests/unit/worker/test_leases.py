"""Leases are renewed while work is in progress, and no longer once it is stuck."""

import threading
import time

import pytest

from worker.pipeline import leases
from worker.pipeline.leases import keep_renewed

DEADLINE_SECONDS = 20


class Claim:
    """Counts its renewals; it is lost after `lost_after` of them."""

    def __init__(self, lost_after: int | None = None) -> None:
        self.renewals = 0
        self._lost_after = lost_after
        self._renewed = threading.Condition()

    def renew(self) -> bool:
        with self._renewed:
            self.renewals += 1
            self._renewed.notify_all()
            return self.renewals != self._lost_after

    def wait_for(self, renewals: int) -> None:
        with self._renewed:
            assert self._renewed.wait_for(lambda: self.renewals >= renewals, DEADLINE_SECONDS)


def test_work_that_is_stuck_is_renewed_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "STUCK_SECONDS", 0.03)
    claim = Claim()
    with keep_renewed(claim.renew, lease_seconds=60, every=0.01) as lost:
        claim.wait_for(3)
        time.sleep(0.1)
    assert claim.renewals == 3
    assert not lost.is_set()


def test_work_that_may_take_longer_is_renewed_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "STUCK_SECONDS", 0.03)
    claim = Claim()
    with keep_renewed(claim.renew, lease_seconds=60, every=0.01, stuck_seconds=600):
        claim.wait_for(10)


def test_a_lost_claim_is_told() -> None:
    claim = Claim(lost_after=2)
    with keep_renewed(claim.renew, lease_seconds=60, every=0.01) as lost:
        assert lost.wait(DEADLINE_SECONDS)
    assert claim.renewals == 2
