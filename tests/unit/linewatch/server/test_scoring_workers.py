"""A machine's cores and GPUs are divided among its scoring workers; the environment takes precedence."""

from pathlib import Path

import pytest

from linewatch.server import scoring_workers
from linewatch.server.scoring_workers import plan_scoring_workers


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))


def on_cores(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(scoring_workers, "cores", lambda: number)


@pytest.mark.parametrize(
    ("cores", "asked", "workers", "threads"),
    [(1, None, 1, "1"), (2, None, 1, "2"), (8, None, 1, "8"), (64, None, 8, "8"), (2, 4, 4, "1"), (12, 3, 3, "4")],
)
def test_each_worker_gets_its_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, asked: int | None, workers: int, threads: str
) -> None:
    on_cores(monkeypatch, cores)
    planned = plan_scoring_workers(asked, "auto", {})
    assert [each["OMP_NUM_THREADS"] for each in planned] == [threads] * workers
    assert all("CUDA_VISIBLE_DEVICES" not in each for each in planned)


def test_one_worker_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cores(monkeypatch, 16)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([Path("/dev/nvidia0"), Path("/dev/nvidia1")]))
    planned = plan_scoring_workers(None, "auto", {})
    assert [(each["CUDA_VISIBLE_DEVICES"], each["OMP_NUM_THREADS"]) for each in planned] == [("0", "8"), ("1", "8")]
    assert len(plan_scoring_workers(None, "cpu", {})) == 2  # one for every eight cores
    assert [each["CUDA_VISIBLE_DEVICES"] for each in plan_scoring_workers(3, "cuda", {})] == ["0", "1", "0"]


def test_what_the_environment_sets_takes_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cores(monkeypatch, 16)
    environment = {"CUDA_VISIBLE_DEVICES": "2, 5", "OMP_NUM_THREADS": "3", "MALLOC_TOP_PAD_": "1"}
    planned = plan_scoring_workers(None, "auto", environment)
    assert [each["CUDA_VISIBLE_DEVICES"] for each in planned] == ["2", "5"]
    assert all("OMP_NUM_THREADS" not in each and "MALLOC_TOP_PAD_" not in each for each in planned)
    assert "CUDA_VISIBLE_DEVICES" not in plan_scoring_workers(None, "auto", {"CUDA_VISIBLE_DEVICES": ""})[0]
