"""Exit codes of the command; every failure is one line that says what to do."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from linewatch import BundleRejected, Refused
from linewatch.cli import failures, run
from linewatch.cli.commands.models import describe_calibration
from linewatch.cli.commands.submit import _BURST_IMAGES, _File, _split
from linewatch.cli.image_files import images_in
from linewatch.cli.stamps import Stamp
from linewatch.server.doctor.redaction import masked

NOBODY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINEWATCH_URL", NOBODY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("linewatch.http.transport.RECONNECTS", 0)


@pytest.mark.parametrize(
    "arguments",
    [
        "nonsense",
        "submit x",
        "submit x --recipe r --nonsense",
        "watch .",
        "watch . --fields {part_id}.*",
        "watch . --recipe r --fields {part}",
        "watch . --recipe r --fields {recipe}.*",
        "watch . --recipe r --lot L --fields {lot_id}.*",
        "watch . --recipe r --accepted .",
        "watch . --recipe r --settle -1",
        "watch . --recipe r --after nothing",
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
        "train --data . --out b --architecture conv-autoencoder --backbone efficientnet-lite0",
        "train --data . --out b --architecture conv-autoencoder --score-method nonsense",
        "train --data . --out b --architecture feature-gaussian --score-method mse",
        "train --data . --out b --review-rate 0.01",
        "train --data . --out b --seed -1",
        "train --data . --out b --group-by nonsense",
        "train --data . --out b --report missing/report.html",
        "train --data . --out b --false-reject-rate 0",
        "train --recipe r",
        "train --recipe r --data . --since 2026-01-01",
        "train --recipe r --data . --compare 5",
        "train --from-reviews",
        "train --from-reviews --recipe r --out b",
        "train --from-reviews --recipe r --activate",
        "train --from-reviews --recipe r --compare -1",
        "train --from-reviews --recipe r --since yesterday",
        "train --from-reviews --recipe r --group-by (x)",
        "calibrate --recipe r --data . --false-reject-rate 1",
        "up --port 70000",
        "up --device abacus",
        "keys create --scope everything",
        "list --status nonsense",
        "list --effective-verdict nonsense",
        "list --reviewed nonsense",
        "list --since yesterday",
        "list --since 0001-01-01",
        "list --until 9999-12-31T23:59:59",
        "list --since 1969-12-31T23:59:59+0000",
        "export --out out.csv --since 2200-01-01T00:00:00+0000",
        "list --part \udcff",
        "keys create x\udcff",
        "list --api-key ü",
        "keys create b --expires 9999-12-31T23:59:59-23:59",
        "keys create b --expires 99999w",
        "keys list --data missing",
        "keys list --data .",
        "export --out x.parquet --format csv",
        "export --out x.CSV --format parquet",
        "export --out - --json",
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
        "webhooks create https://mes.test --max-group-size 1001",
        "webhooks create https://mes.test --max-group-delay-ms 60001",
        "webhooks create https://mes.test --event endpoint.test",
        "webhooks update 1",
        "webhooks update 1 --recipe r --all-recipes",
        "webhooks update 1 --state broken",
        "webhooks deliveries 1 --state nonsense",
        "image 1",
        "image 1 --out a.png --link",
        "image 1 --out .",
        "image 1 --out - --json",
        "holds",
        "holds set --lot L",
        "holds set --reason recall",
        "holds release 1",
        "holds list --state nonsense",
        "recipes",
        "recipes update --recipe r",
        "recipes update --bit-depth 12",
        "recipes update --recipe r --bit-depth 11",
        "recipes update --recipe r --state gone",
        "train --data . --out b --bit-depth 9",
        "status --url 127.0.0.1:8000",
    ],
)
def test_usage_errors_print_one_line_and_exit_with_2(
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
        "watch missing --once --recipe r",
        "show 1",
        "list",
        "export --out out.csv",
        "review 1 --verdict ok --reviewer m --reason dust",
        "part SN-4711",
        "image 1 --link",
        "image 1 --out a.png",
        "holds list",
        "holds set --lot L --reason recall",
        "results",
        "results --consumer mes --after now",
        "results --cursor-file broken.cursor",
        "webhooks list",
        "webhooks create https://mes.test --event inspection.completed",
        "webhooks show 1",
        "webhooks update 1 --state enabled",
        "webhooks delete 1",
        "webhooks test 1",
        "webhooks rotate-secret 1",
        "webhooks deliveries 1",
        "webhooks replay 1",
        "recipes list",
        "recipes update --recipe r --bit-depth 12",
        "models list --recipe r",
        "models import part.png --recipe r",
        "train --data . --recipe r",
        "train --data missing --out b",
        "train --data . --out b",
        "calibrate --recipe r --data missing",
    ],
)
def test_failures_print_one_line_and_exit_with_1(
    arguments: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("part.png").touch()
    Path("broken.cursor").write_bytes(b"\xff\xfe")
    assert run(arguments.split()) == failures.FAILED
    _is_one_line(capfd)


def _is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    output = capfd.readouterr()
    assert output.out == ""
    assert output.err.startswith("linewatch: ")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--help",
        "train --help",
        "models import --help",
        "keys create --help",
        "recipes --help",
        "webhooks --help",
        "webhooks update --help",
        "results --help",
    ],
)
def test_help_exits_with_0(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments.split()) == 0
    assert "Usage: linewatch" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "value"), [("MINIBATCH", "many"), ("WEBHOOK_RETRY_SECONDS", "5,x")])
def test_invalid_settings_name_their_variable(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    from core.settings import settings

    monkeypatch.setenv(f"LINEWATCH_{name}", value)
    settings.cache_clear()
    assert run(["keys", "list"]) == failures.WRONG_USE
    assert f"LINEWATCH_{name}: " in capfd.readouterr().err
    settings.cache_clear()


def test_the_default_database_is_that_of_the_data_directory(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from core.settings import settings

    monkeypatch.setattr("linewatch.server.commands.server_settings.default_data_directory", lambda: tmp_path / "none")
    settings.cache_clear()
    assert run(["keys", "list"]) == failures.FAILED
    assert "--data DIR" in capfd.readouterr().err
    settings.cache_clear()


def test_expected_failures_say_what_to_do() -> None:
    unauthenticated = failures.explain(Refused("unauthenticated", 401, "Send a key."))
    assert unauthenticated is not None
    assert "LINEWATCH_API_KEY" in unauthenticated.line
    wrong = failures.explain(Refused("invalid_field", 422, "limit: too many"))
    assert wrong is not None
    assert wrong.exit_code == failures.WRONG_USE
    assert failures.explain(BundleRejected("no")) == failures.Failure("no", failures.FAILED)
    missing = failures.explain(ModuleNotFoundError("no torch", name="torch"))
    assert missing is not None
    assert "pip install 'linewatch[worker]'" in missing.line
    full = failures.explain(OSError(errno.ENOSPC, "No space left on device", "/data"))
    assert full == failures.Failure("/data: No space left on device", failures.FAILED)


def test_a_bug_is_not_reported_as_a_failure() -> None:
    assert failures.explain(KeyError("x")) is None
    assert failures.explain(ModuleNotFoundError("no linewtach", name="linewtach")) is None


def test_an_interrupt_exits_with_130_and_says_what_continues(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    folder, image = tmp_path / "images", tmp_path / "part.png"
    folder.mkdir()
    for command in ("status", "submit"):
        monkeypatch.setattr(f"linewatch.cli.commands.{command}.client", interrupted)
    messages = {"status": "interrupted", "submit FOLDER": "interrupted; the same command continues where it stopped"}
    messages["submit IMAGE"] = "interrupted; images that were accepted will be scored (see `linewatch list`)"
    for command, line in messages.items():
        words = command.replace("FOLDER", str(folder)).replace("IMAGE", str(image)).split()
        assert run([*words, "--recipe", "r"] if "submit" in command else words) == failures.INTERRUPTED
        assert capfd.readouterr() == ("", f"linewatch: {line}\n")


def test_an_interrupt_during_the_imports_exits_with_130_too(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")
    program = "import sys; sys.path.insert(0, sys.argv.pop()); from linewatch.cli import main; main()"
    completed = subprocess.run([sys.executable, "-c", program, "status", tmp_path], capture_output=True, text=True)
    assert (completed.returncode, completed.stdout, completed.stderr) == (
        failures.INTERRUPTED,
        "",
        "linewatch: interrupted\n",
    )


def test_secrets_are_masked() -> None:
    from pydantic import SecretStr

    text = masked(SecretStr("postgresql+psycopg://me:s3cret@host:5432/db?sslpassword=s3cret&x=1"))
    assert text == "postgresql+psycopg://me:********@host:5432/db?sslpassword=********&x=1"
    assert masked(SecretStr("redis://:s3cret@host/0")) == "redis://:********@host/0"
    assert masked((5, 0.5, 1_000_000.0)) == "5,0.5,1000000"
    assert masked(SecretStr("redis://host/0")) == "redis://host/0"
    assert "s3cret" not in str(masked(SecretStr("redis://:s3cret@[host")))


def test_a_calibration_describes_its_expected_rate_and_sample() -> None:
    calibration = {
        "expected_false_reject_rate": 0.04,
        "confidence": 0.95,
        "confidence_interval": [0.008, 0.094],
        "sample_size": 74,
    }
    text = describe_calibration(calibration)
    assert "4.0%" in text
    assert "0.8% to 9.4%" in text
    assert "74 held-out good parts" in text
    assert describe_calibration(None) == "set by hand, so its false-reject rate is not known"


def test_a_calibration_describes_its_review_rate_and_the_number_of_parts() -> None:
    band = {"threshold": 0.4, "rate": 0.1, "expected_rate": 0.1, "confidence_interval": [0.03, 0.2]}
    description = describe_calibration(
        {
            "expected_false_reject_rate": 0.05,
            "confidence_interval": [0.01, 0.12],
            "confidence": 0.95,
            "sample_size": 60,
            "groups": 20,
            "review": band,
        }
    )
    assert "about 5.0% of good parts will be rejected, and 10.0% rejected or reviewed" in description
    assert "from 60 held-out good parts in 20 groups" in description


def test_bursts_are_limited_and_contain_no_name_twice() -> None:
    def sizes(*named: tuple[str, int]) -> list[int]:
        files = [_File(number, Path("x"), Stamp(name, size, 0)) for number, (name, size) in enumerate(named)]
        return [len(burst) for burst in _split(files)]

    assert sizes(*((f"{number}.png", 1) for number in range(_BURST_IMAGES + 1))) == [_BURST_IMAGES, 1]
    assert sizes(("1", 1), ("1", 1)) == [1, 1]
    assert sizes(*((str(number), 2**30) for number in range(3))) == [1, 1, 1]
    assert sizes() == []


def test_images_are_found_by_suffix_and_hidden_ones_skipped(tmp_path: Path) -> None:
    for name in ("b.PNG", "a/c.tiff", "a/notes.txt", ".hidden.png", ".thumbnails/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in images_in(tmp_path)] == ["a/c.tiff", "b.PNG"]


def test_the_command_offers_all_event_types() -> None:
    from core.feed.events import EventType
    from linewatch.cli.commands.webhooks import _EVENTS

    assert set(_EVENTS) == {event.value for event in EventType} - {EventType.ENDPOINT_TEST}


def test_the_command_and_the_server_accept_the_same_image_suffixes() -> None:
    from core.intake import image_formats
    from linewatch.cli.image_files import SUFFIXES

    assert SUFFIXES == image_formats.SUFFIXES
