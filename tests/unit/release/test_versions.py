"""The version is written in few places, and the same in all of them."""

import re
import shutil
from pathlib import Path

import pytest

from release import ReleaseError, versions

ROOT = Path(__file__).parents[3]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the files that have the version."""
    for name in {name for name, _ in versions.PLACES}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_the_version_is_the_same_everywhere() -> None:
    assert versions.is_version(versions.read(ROOT))


def test_a_new_version_changes_only_the_version(root: Path) -> None:
    files = {name: (root / name).read_text() for name, _ in versions.PLACES}
    former = versions.read(root)
    versions.write(root, "12.34.56")
    assert versions.read(root) == "12.34.56"
    for name, text in files.items():
        changed = [line for line in (root / name).read_text().splitlines() if line not in text.splitlines()]
        assert [line.replace("12.34.56", former) in text.splitlines() for line in changed] == [True] * len(changed)
    versions.write(root, former)
    assert {name: (root / name).read_text() for name in files} == files


def test_places_that_differ_are_named(root: Path) -> None:
    chart = root / "deploy/helm/linewatch/Chart.yaml"
    chart.write_text(re.sub("appVersion: .*", "appVersion: 9.9.9", chart.read_text()))
    with pytest.raises(ReleaseError, match=r"Chart\.yaml has appVersion: 9\.9\.9"):
        versions.read(root)


@pytest.mark.parametrize("text", ["", "0.2", "v0.2.0", "0.2.0rc1", "0.2.0-rc.1", "01.2.0", "0.2.0\n", "0.2.٣"])
def test_other_forms_are_no_versions(text: str) -> None:
    with pytest.raises(ReleaseError, match="three numbers"):
        versions.parse(text)


def test_versions_are_compared_by_their_numbers() -> None:
    assert versions.parse("0.10.0") > versions.parse("0.9.12")
