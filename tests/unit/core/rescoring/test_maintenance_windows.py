"""Maintenance windows, in which bulk work runs, follow the local clock."""

import datetime as dt

import pytest

from core.rescoring.maintenance_windows import MaintenanceWindow, parse_time_zone


def hours_open(window: MaintenanceWindow, begin: dt.datetime, hours: int) -> float:
    """Return how many of the following hours the window is open, in steps of 15 minutes."""
    quarters = [begin + dt.timedelta(minutes=15 * number) for number in range(4 * hours)]
    return sum(window.is_open(moment) for moment in quarters) / 4


@pytest.mark.parametrize(
    ("window", "open_at", "closed_at"),
    [
        ("22:00-05:00", ["22:00", "23:59", "00:00", "04:59"], ["05:00", "12:00", "21:59"]),
        ("09:30-17:00", ["09:30", "16:59"], ["00:00", "09:29", "17:00", "23:59"]),
        ("00:00-12:00", ["00:00", "11:59"], ["12:00", "23:59"]),
        ("12:00-00:00", ["12:00", "23:59"], ["00:00", "11:59"]),
    ],
)
def test_a_window_includes_its_start_and_excludes_its_end(
    window: str, open_at: list[str], closed_at: list[str]
) -> None:
    parsed = MaintenanceWindow.parse(window, "Europe/Berlin")
    for time in open_at + closed_at:
        moment = dt.datetime.fromisoformat(f"2026-06-15T{time}").replace(tzinfo=parse_time_zone("Europe/Berlin"))
        assert parsed.is_open(moment) == (time in open_at), time


def test_a_window_follows_the_clock_of_its_time_zone() -> None:
    window = MaintenanceWindow.parse("22:00-05:00", "Europe/Berlin")
    assert window.is_open(dt.datetime(2026, 7, 1, 20, 0, tzinfo=dt.UTC))  # summer: two hours ahead
    assert not window.is_open(dt.datetime(2026, 1, 1, 20, 0, tzinfo=dt.UTC))  # winter: one hour ahead
    assert window.is_open(dt.datetime(2026, 1, 1, 21, 0, tzinfo=dt.UTC))
    assert MaintenanceWindow.parse("22:00-05:00", "America/Chicago").is_open(
        dt.datetime(2026, 7, 1, 3, 0, tzinfo=dt.UTC)
    )


def test_clock_changes_shorten_or_lengthen_a_window() -> None:
    window = MaintenanceWindow.parse("22:00-05:00", "Europe/Berlin")
    noon = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
    assert hours_open(window, noon, 24) == 7
    assert hours_open(window, noon.replace(day=28), 24) == 6
    assert hours_open(window, noon.replace(month=10, day=24), 24) == 8


def test_a_repeated_hour_is_open_twice_and_a_skipped_one_never() -> None:
    window = MaintenanceWindow.parse("02:00-03:00", "Europe/Berlin")
    assert hours_open(window, dt.datetime(2026, 10, 24, 22, 0, tzinfo=dt.UTC), 8) == 2
    assert hours_open(window, dt.datetime(2026, 3, 28, 22, 0, tzinfo=dt.UTC), 8) == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "22:00",
        "22-05",
        "24:00-05:00",
        "22:60-05:00",
        "2:00-05:00",
        "22:00-05:00 ",
        "22:00–05:00",
        "\u0662\u0662:00-05:00",
    ],
)
def test_an_invalid_window_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a window: write it like"):
        MaintenanceWindow.parse(text, "UTC")


def test_a_window_of_zero_length_is_refused() -> None:
    with pytest.raises(ValueError, match="ends when it begins"):
        MaintenanceWindow.parse("05:00-05:00", "UTC")


@pytest.mark.parametrize("name", ["", "Berlin", "Europe", "../UTC", "/etc/passwd", "UTC\0", "Europe/Berlin "])
def test_an_unknown_time_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a time zone: use a name like"):
        parse_time_zone(name)
