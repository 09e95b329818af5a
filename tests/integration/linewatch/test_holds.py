"""Legal holds with both clients and on the command line."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from core.settings import Settings
from linewatch import LegalHold, Refused
from linewatch.cli import run
from tests.fixtures.api_process import running_api
from tests.fixtures.mock_system import CLIENTS


@pytest.fixture
def url(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a running api; commands use it."""
    with running_api(settings) as http:
        monkeypatch.setenv("LINEWATCH_URL", str(http.base_url))
        yield str(http.base_url)


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_a_hold_is_set_found_and_released(client: Callable[..., Any], url: str) -> None:
    with client(url) as lw:
        hold: LegalHold = lw.set_legal_hold(lot_id="L-204", reason="complaint 17")
        other = lw.set_legal_hold(part_id="SN-1", reason="recall")
        assert lw.legal_hold(hold.id) == hold
        assert (hold.lot_id, hold.part_id, hold.actor, hold.state) == ("L-204", None, "local", "active")
        assert list(lw.legal_holds(page_size=1)) == [other, hold]
        assert list(lw.legal_holds(lot_id="L-204")) == [hold]
        assert list(lw.legal_holds(lot_id="L-204", part_id="SN-1")) == [other, hold]
        assert list(lw.legal_holds(lot_id="SN-1")) == []
        released = lw.release_legal_hold(hold.id, reason="settled")
        assert (released.state, released.released_by, released.release_reason) == ("released", "local", "settled")
        assert list(lw.legal_holds(state="active", lot_id="L-204", part_id="SN-1")) == [other]
        assert list(lw.legal_holds(state="released")) == [released]
        with pytest.raises(Refused, match="released before") as refused:
            lw.release_legal_hold(hold.id, reason="settled")
        assert refused.value.code == "invalid_transition"
        with pytest.raises(Refused, match="either a lot_id or a part_id"):
            lw.set_legal_hold(reason="recall")


def test_the_command_sets_lists_shows_and_releases(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["holds", "set", "--lot", "L-204", "--reason", "complaint 17", "--json"]) == 0
    hold = json.loads(capsys.readouterr().out)
    assert run(["holds", "set", "--part", "SN-1", "--reason", "recall"]) == 0
    assert "Nothing of part SN-1 is removed until" in capsys.readouterr().err
    assert run(["holds", "list"]) == 0
    header, part, lot = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert header == ["set", "on", "state", "by", "reason", "id"]
    assert part[2:7] == ["part", "SN-1", "active", "local", "recall"]
    assert lot[2:] == ["lot", "L-204", "active", "local", "complaint", "17", hold["id"]]
    assert run(["holds", "show", hold["id"]]) == 0
    assert "complaint 17" in capsys.readouterr().out
    assert run(["holds", "release", hold["id"], "--reason", "settled"]) == 0
    assert "The hold on lot L-204 is released." in capsys.readouterr().err
    assert run(["holds", "list", "--state", "released", "--lot", "L-204", "--json"]) == 0
    [released] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (released["id"], released["release_reason"]) == (hold["id"], "settled")
    assert run(["holds", "release", hold["id"], "--reason", "settled"]) == 1
    assert "was released before" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--lot", "L", "--part", "P"]], ids=["neither", "both"])
def test_a_hold_is_on_a_lot_or_on_a_part(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["holds", "set", "--reason", "recall", *arguments]) == 2
    assert "name either --lot or --part" in capsys.readouterr().err
