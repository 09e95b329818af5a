"""The command: its exit codes, and that every failure is one line that says what to do."""

import errno
from pathlib import Path

import pytest

from linewatch import BundleRejected, Refused
from linewatch.cli import failures, run
from linewatch.cli.doctor import _masked
from linewatch.cli.journal import Stamp
from linewatch.cli.models import meaning
from linewatch.cli.pictures import pictures_in
from linewatch.cli.submit import _BURST_PICTURES, _bursts, _File

NOBODY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINEWATCH_URL", NOBODY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("linewatch.transport.RECONNECTS", 0)


@pytest.mark.parametrize(
    "arguments",
    [
        "nonsense",
        "submit x",
        "submit x --recipe r --nonsense",
        "models",
        "models import net.pth --recipe r",
        "models import bundle --recipe r --threshold 1",
        "models import missing.tar --recipe r",
        "models activate --recipe r --version 0",
        "train --data .",
        "train --data . --out b --activate",
        "train --data . --out b --epochs 0",
        "train --data . --out b --architecture nonsense",
        "train --data . --out b --backbone nonsense",
        "train --data . --out b --backbone-weights missing.pth",
        "train --data . --out b --architecture conv-autoencoder --backbone-weights .",
        "train --data . --out b --architecture conv-autoencoder --score-method nonsense",
        "train --data . --out b --architecture feature-gaussian --score-method mse",
        "train --data . --out b --review-rate 0.01",
        "train --data . --out b --seed -1",
        "train --data . --out b --group-by nonsense",
        "train --data . --out b --report missing/report.html",
        "train --data . --out b --false-reject-rate 0",
        "calibrate --recipe r --data . --false-reject-rate 1",
        "up --port 70000",
        "up --device abacus",
        "keys create --scope everything",
        "list --status nonsense",
        "list --effective-verdict nonsense",
        "list --since yesterday",
        "export",
        "export --out .",
        "export --out missing/out.csv",
        "export --out out.csv --format xml",
        "review 1 --verdict ok --reviewer m",
        "review 1 --verdict review --reviewer m --reason dust",
        "part",
        "results --cursor-file missing/cursor",
        "webhooks",
        "webhooks create",
        "webhooks create https://mes.test --max-group-size 0",
        "webhooks update 1",
        "webhooks update 1 --recipe r --all-recipes",
        "webhooks update 1 --state broken",
        "webhooks deliveries 1 --state nonsense",
        "status --url 127.0.0.1:8000",
    ],
)
def test_wrong_use_is_one_line_and_2(
    arguments: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments.split()) == failures.WRONG_USE
    _is_one_line(capfd)


@pytest.mark.parametrize(
    "arguments",
    [
        "status",
        "submit . --recipe r",
        "submit missing.png --recipe r",
        "submit part.png --recipe r",
        "show 1",
        "list",
        "export --out out.csv",
        "review 1 --verdict ok --reviewer m --reason dust",
        "part SN-4711",
        "results",
        "results --follow",
        "results --consumer mes --after now",
        "webhooks list",
        "webhooks create https://mes.test --event inspection.completed",
        "webhooks show 1",
        "webhooks update 1 --state enabled",
        "webhooks delete 1",
        "webhooks test 1",
        "webhooks rotate-secret 1",
        "webhooks deliveries 1",
        "webhooks replay 1",
        "models list --recipe r",
        "models import part.png --recipe r",
        "train --data . --recipe r",
        "train --data missing --out b",
        "train --data . --out b",
        "calibrate --recipe r --data missing",
    ],
)
def test_work_that_fails_is_one_line_and_1(
    arguments: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("part.png").touch()
    assert run(arguments.split()) == failures.FAILED
    _is_one_line(capfd)


def _is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err.startswith("linewatch: ")
    assert told.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--help",
        "train --help",
        "models import --help",
        "keys create --help",
        "webhooks --help",
        "webhooks update --help",
        "results --help",
    ],
)
def test_help_is_no_failure(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments.split()) == 0
    assert "Usage: linewatch" in capsys.readouterr().out


def test_wrong_settings_name_their_variable(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from core.settings import settings

    monkeypatch.setenv("LINEWATCH_MINIBATCH", "many")
    settings.cache_clear()
    assert run(["keys", "list"]) == failures.WRONG_USE
    assert "LINEWATCH_MINIBATCH" in capfd.readouterr().err
    settings.cache_clear()


def test_failures_that_are_foreseen_say_what_to_do() -> None:
    unauthenticated = failures.explain(Refused("unauthenticated", 401, "Send a key."))
    assert unauthenticated is not None
    assert "LINEWATCH_API_KEY" in unauthenticated.line
    assert failures.explain(BundleRejected("no")) == failures.Failure("no", failures.FAILED)
    missing = failures.explain(ModuleNotFoundError("no torch", name="torch"))
    assert missing is not None
    assert "pip install 'linewatch[worker]'" in missing.line
    full = failures.explain(OSError(errno.ENOSPC, "No space left on device", "/data"))
    assert full == failures.Failure("/data: No space left on device", failures.FAILED)


def test_a_defect_is_not_dressed_up_as_a_failure() -> None:
    assert failures.explain(KeyError("x")) is None
    assert failures.explain(ModuleNotFoundError("no linewtach", name="linewtach")) is None


def test_an_interrupt_is_130(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("linewatch.cli.status.client", interrupted)
    assert run(["status"]) == failures.INTERRUPTED
    _is_one_line(capfd)


def test_secrets_are_masked() -> None:
    from pydantic import SecretStr

    masked = _masked(SecretStr("postgresql+psycopg://me:s3cret@host:5432/db?sslpassword=s3cret&x=1"))
    assert masked == "postgresql+psycopg://me:********@host:5432/db?sslpassword=********&x=1"
    assert _masked(SecretStr("redis://:s3cret@host/0")) == "redis://:********@host/0"
    assert _masked(SecretStr("redis://host/0")) == "redis://host/0"
    assert "s3cret" not in str(_masked(SecretStr("redis://:s3cret@[host")))


def test_a_threshold_says_what_it_costs_and_how_that_is_known() -> None:
    calibration = {
        "expected_false_reject_rate": 0.04,
        "confidence": 0.95,
        "confidence_interval": [0.008, 0.094],
        "sample_size": 74,
    }
    text = meaning(calibration)
    assert "4.0%" in text
    assert "0.8% to 9.4%" in text
    assert "74 held-out good parts" in text
    assert meaning(None) == "set by hand, its cost is not known"


def test_a_threshold_says_what_is_reviewed_and_how_few_parts_that_is_known_from() -> None:
    band = {"threshold": 0.4, "rate": 0.1, "expected_rate": 0.1, "confidence_interval": [0.03, 0.2]}
    said = meaning(
        {
            "expected_false_reject_rate": 0.05,
            "confidence_interval": [0.01, 0.12],
            "confidence": 0.95,
            "sample_size": 60,
            "groups": 20,
            "review": band,
        }
    )
    assert "about 5.0% of good parts will be rejected, and 10.0% rejected or reviewed" in said
    assert "from 60 held-out good parts in 20 groups" in said


def test_bursts_are_bounded_and_hold_no_name_twice() -> None:
    def sizes(*named: tuple[str, int]) -> list[int]:
        files = [_File(number, Path("x"), Stamp(name, size, 0)) for number, (name, size) in enumerate(named)]
        return [len(burst) for burst in _bursts(files)]

    assert sizes(*((f"{number}.png", 1) for number in range(_BURST_PICTURES + 1))) == [_BURST_PICTURES, 1]
    assert sizes(("1", 1), ("1", 1)) == [1, 1]
    assert sizes(*((str(number), 2**30) for number in range(3))) == [1, 1, 1]
    assert sizes() == []


def test_pictures_are_found_by_suffix_and_hidden_ones_left_out(tmp_path: Path) -> None:
    for name in ("b.PNG", "a/c.tiff", "a/notes.txt", ".hidden.png", ".thumbnails/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in pictures_in(tmp_path)] == ["a/c.tiff", "b.PNG"]


def test_the_command_takes_the_same_files_for_pictures_as_training_does() -> None:
    from core.vision.dataset import SUFFIXES as OF_TRAINING
    from linewatch.cli.pictures import SUFFIXES

    assert SUFFIXES == OF_TRAINING
