"""Usage errors and progress of `linewatch rescore`, without a server."""

from typing import Any

import pytest

from linewatch.cli import failures, run
from linewatch.cli.commands.rescoring.run_lookup import format_seconds, progress_of
from linewatch.types.rescoring import RescoreRun
from tests.fixtures.mock_system import RUN

COMMAND = ["rescore", "--recipe", "r", "--model", "1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rescore"], "--recipe and --model"),
        (["rescore", "--recipe", "r", "--all"], "--model"),
        (COMMAND, "one of --all, --where, --folder and --manifest"),
        ([*COMMAND, "--all", "--folder", "lot"], "one of --all"),
        ([*COMMAND, "--where", "lot"], "lot=L-1"),
        ([*COMMAND, "--all", "--threshold", "inf"], "--threshold inf"),
        ([*COMMAND, "--all", "--max-failure-rate", "2"], "--max-failure-rate"),
        ([*COMMAND, "list"], "name options after `list`"),
        (["rescore", "--url", "http://127.0.0.1:9", "list"], "name options after `list`"),
        (["rescore", "report", "last", "--out", "r.json", "--format", "html"], "contradict"),
        (["rescore", "report", "last", "--format", "html", "--json"], "--json"),
        (["rescore", "export", "last", "--out", "r.csv", "--format", "parquet"], "contradict"),
        (["rescore", "export", "last", "--out", "nowhere/r.csv"], "the folder nowhere does not exist"),
    ],
)
def test_usage_errors_are_reported_before_any_request(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == failures.WRONG_USE
    output = capsys.readouterr()
    assert (output.out, message in output.err, output.err.count("\n")) == ("", True, 1), output.err


def test_the_url_can_be_set_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LINEWATCH_URL", "nonsense")
    assert run(["rescore", "list"]) == failures.WRONG_USE
    assert "is not an address" in capsys.readouterr().err


def test_progress_is_described() -> None:
    def words(*, rate: float = 0.0, left: float | None = None, failed: int = 0, **more_counts: Any) -> str:
        progress = {"done": 10, "share": None, "rate": rate, "seconds_left": left}
        counts = RUN["counts"] | {"failed": failed, "ok_to_ng": 2}
        return progress_of(RescoreRun.from_document({**RUN, **more_counts, "progress": progress, "counts": counts}))

    assert words() == "2 ok→ng, 0 ng→ok"
    assert words(status="running", rate=12.34, left=300, failed=1) == "12.3/s, 5 min left, 1 failed, 2 ok→ng, 0 ng→ok"
    waits = words(status="running", window="22:00-05:00", time_zone="UTC")
    assert waits == "0.0/s, runs 22:00-05:00 UTC, 2 ok→ng, 0 ng→ok"
    assert [format_seconds(seconds) for seconds in (0.4, 99, 100, 5990, 6000, 86400)] == [
        "0 s",
        "99 s",
        "2 min",
        "100 min",
        "1.7 h",
        "24.0 h",
    ]
