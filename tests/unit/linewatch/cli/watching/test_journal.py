"""The journal of a watched folder: crash safety, locking and forgetting."""

from pathlib import Path

import pytest

from linewatch.cli.failures import CommandFailed
from linewatch.cli.stamps import Stamp
from linewatch.cli.watching import journal as journals
from linewatch.cli.watching.journal import KEPT_DAYS, Entry, Outcome, WatchJournal, opened

A, B = Stamp("line/a.png", 10, 1), Stamp("b\udcff.png", 0, 2**70)  # not UTF-8, and a time that no integer holds
ABOUT = {"url": "http://x", "folder": "/images"}


def entry_of(journal: WatchJournal, stamp: Stamp) -> Entry | None:
    [(_, entry)] = journal.look_up([stamp])
    return entry


def test_the_journal_survives_its_process(tmp_path: Path) -> None:
    with opened(tmp_path, ABOUT, again=False) as journal:
        [first, second] = journal.begin([(A, {"recipe": "ring"}), (B, None)])
        assert first.key != second.key
        rejected = second.with_outcome(Outcome(code="path_mismatch", detail="No."))
        journal.record([rejected])
    with opened(tmp_path, ABOUT, again=False) as journal:
        assert list(journal.look_up([A, B])) == [(A, first), (B, rejected)]
        accepted = first.with_outcome(Outcome(inspection_id="1"))
        journal.record([accepted])
        assert entry_of(journal, A) == accepted
        journal.forget([accepted, rejected])
        assert list(journal.look_up([A, B])) == [(A, None), (B, None)]


def test_a_changed_file_is_new_and_replaces_the_entry(tmp_path: Path) -> None:
    changed = Stamp(A.name, 10, 2)
    with opened(tmp_path, ABOUT, again=False) as journal:
        [old] = journal.begin([(A, {})])
        assert entry_of(journal, changed) is None
        [new] = journal.begin([(changed, {})])
        journal.record([old.with_outcome(Outcome(inspection_id="1"))])  # an answer for the file as it was
        journal.forget([old])
        assert entry_of(journal, changed) == new
        assert entry_of(journal, A) is None


def test_a_file_that_is_absent_for_long_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    day = journals._today()
    with opened(tmp_path, ABOUT, again=False) as journal:
        entries = journal.begin([(A, {}), (B, {})])
        for later in (KEPT_DAYS, 2 * KEPT_DAYS):
            monkeypatch.setattr(journals, "_today", lambda later=later: day + later)
            assert entry_of(journal, A) == entries[0]
        assert entry_of(journal, B) is None


def test_the_journal_is_cleared_on_request_and_is_of_one_folder(tmp_path: Path) -> None:
    with opened(tmp_path, ABOUT, again=False) as journal:
        journal.begin([(A, {})])
    with opened(tmp_path, ABOUT | {"folder": "/others"}, again=False) as journal:
        assert entry_of(journal, A) is None
    with opened(tmp_path, ABOUT, again=True) as journal:
        assert entry_of(journal, A) is None


def test_one_process_uses_a_journal_at_a_time(tmp_path: Path) -> None:
    with (
        opened(tmp_path, ABOUT, again=False),
        pytest.raises(CommandFailed, match="another process"),
        opened(tmp_path, ABOUT, again=True),
    ):
        pass


def test_the_error_of_a_damaged_journal_says_what_to_do(tmp_path: Path) -> None:
    with opened(tmp_path, ABOUT, again=False):
        [file] = tmp_path.glob("*.sqlite3")
    file.write_text("no database " * 1000)
    with pytest.raises(CommandFailed, match="delete it"), opened(tmp_path, ABOUT, again=False):
        pass


def test_the_error_of_a_journal_without_a_folder_names_it(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="cannot be opened"), opened(tmp_path / "missing", ABOUT, again=False):
        pass
