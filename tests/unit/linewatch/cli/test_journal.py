"""The journal of a submission: crash safety and locking."""

from pathlib import Path

import pytest

from linewatch.cli.failures import CommandFailed
from linewatch.cli.journal import Accepted, opened
from linewatch.cli.stamps import Stamp

A, B, C = (Stamp(name, 10, 1) for name in ("a.png", "b.png", "c\udcff.png"))  # a name that is not UTF-8
ABOUT = {"url": "http://x", "recipe": "ring", "folder": "/images"}


def test_the_journal_contains_accepted_and_unanswered_uploads(tmp_path: Path) -> None:
    with opened(tmp_path, ABOUT, again=False) as journal:
        answered, lost, given_up = journal.begin([A, C]), journal.begin([B]), journal.begin([B])
        assert len({answered, lost, given_up}) == 3
        journal.accept(answered, "batch", {"a.png": "1"})
        journal.give_up(given_up)
    with opened(tmp_path, ABOUT, again=False) as journal:
        assert journal.accepted(A) == Accepted("1", "batch")
        assert journal.accepted(Stamp("a.png", 10, 2)) is None
        assert journal.accepted(C) is None
        assert journal.unanswered == {lost: [B]}
        assert journal.batches == ["batch"]
        journal.forget("batch")
        assert journal.accepted(A) is None
    with opened(tmp_path, ABOUT, again=False) as journal:
        assert (journal.accepted(A), journal.batches) == (None, [])


def test_a_journal_of_an_older_version_is_continued(tmp_path: Path) -> None:
    with opened(tmp_path, ABOUT, again=False) as journal:
        key = journal.begin([A, C])
    [file] = tmp_path.glob("*.jsonl")
    content = file.read_text()
    assert content.count('"images"') == 1
    file.write_text(content.replace('"images"', '"pictures"'))
    with opened(tmp_path, ABOUT, again=False) as journal:
        assert journal.unanswered == {key: [A, C]}


def test_other_fields_use_another_journal_and_again_deletes_it(tmp_path: Path) -> None:
    with opened(tmp_path, ABOUT, again=False) as journal:
        journal.accept(journal.begin([A]), "batch", {"a.png": "1"})
    with opened(tmp_path, ABOUT | {"lot_id": "L-1"}, again=False) as journal:
        assert journal.accepted(A) is None
    with opened(tmp_path, ABOUT, again=True) as journal:
        assert journal.accepted(A) is None


@pytest.mark.parametrize("kept", range(0, 60, 7))
def test_an_incomplete_line_is_ignored(tmp_path: Path, kept: int) -> None:
    with opened(tmp_path, ABOUT, again=False) as journal:
        key = journal.begin([A])
        [file] = tmp_path.glob("*.jsonl")
        whole = file.read_bytes()
        journal.accept(key, "batch", {"a.png": "1"})
    file.write_bytes(whole + file.read_bytes()[len(whole) :][:kept])
    with opened(tmp_path, ABOUT, again=False) as journal:
        assert journal.unanswered == {key: [A]}
        journal.accept(key, "batch", {"a.png": "1"})
    with opened(tmp_path, ABOUT, again=False) as journal:
        assert journal.accepted(A) == Accepted("1", "batch")


def test_one_process_uses_a_journal_at_a_time(tmp_path: Path) -> None:
    with (
        opened(tmp_path, ABOUT, again=False),
        pytest.raises(CommandFailed, match="another process"),
        opened(tmp_path, ABOUT, again=True),
    ):
        pass


def test_the_error_of_a_damaged_journal_says_what_to_do(tmp_path: Path) -> None:
    with opened(tmp_path, ABOUT, again=False) as journal:
        journal.begin([A])
    [file] = tmp_path.glob("*.jsonl")
    file.write_text('{"accepted": "nothing"}\n')
    with pytest.raises(CommandFailed, match="--again"), opened(tmp_path, ABOUT, again=False):
        pass
    with opened(tmp_path, ABOUT, again=True) as journal:
        assert journal.unanswered == {}
