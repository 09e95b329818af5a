"""The changelog of a release."""

import datetime as dt

import pytest

from release import ReleaseError, changelog

TEXT = """# Changelog

Words.

## Unreleased

### Added
- One thing,
  on two lines.

## 0.1.0

### Added
- Everything.
"""
DAY = dt.date(2027, 2, 3)


def test_unreleased_entries_become_a_section_with_a_date() -> None:
    assert changelog.released(TEXT, "0.2.0", DAY) == TEXT.replace(
        "## Unreleased\n", "## Unreleased\n\n## 0.2.0 (2027-02-03)\n"
    )
    assert changelog.unreleased(TEXT) == "### Added\n- One thing,\n  on two lines."
    assert changelog.versions(changelog.released(TEXT, "0.2.0", DAY)) == ["0.2.0", "0.1.0"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (changelog.released(TEXT, "0.2.0", DAY), "nothing under"),
        (TEXT.replace("- One thing", "One thing"), "nothing under"),
        (TEXT.replace("## Unreleased", "## Next"), "has 0"),
        (TEXT + "\n## Unreleased\n", "has 2"),
    ],
)
def test_a_changelog_without_news_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ReleaseError, match=problem):
        changelog.released(text, "0.2.0", DAY)
