"""Turn failures into one line on standard error and an exit code."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from click.exceptions import ClickException, UsageError

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130


@dataclass(frozen=True)
class Failure:
    """The line to print about a failure, and the exit code."""

    line: str
    exit_code: int


class CommandFailed(Exception):  # noqa: N818 - named after the event
    """The work of a command failed; the message says what to do."""


class WrongUse(Exception):  # noqa: N818
    """A command was called wrongly; the message says how to call it."""


class Detached(Exception):  # noqa: N818
    """The user stopped following something that continues; the message says how to follow it again."""


def print_error(line: str) -> None:
    """Print an error as one line."""
    sys.stderr.write(f"linewatch: {' '.join(line.split())}\n")


def explain(error: Exception) -> Failure | None:
    """Return what to print about an error, or None for an unexpected error.

    Error classes are looked up in loaded modules only, because a module that is not loaded has raised nothing.
    """
    for module, name, describe in _FAMILIES:
        family = getattr(sys.modules.get(module), name, None)
        if family is not None and isinstance(error, family):
            return describe(error)
    return None


def _plain(error: Any) -> Failure:
    return Failure(str(error), FAILED)


def _click(error: ClickException) -> Failure:
    command = error.ctx.command_path if isinstance(error, UsageError) and error.ctx else "linewatch"
    return Failure(
        f"{error.format_message().replace('Value error, ', '').rstrip('.')} (see `{command} --help`)", error.exit_code
    )


def _refused(error: Any) -> Failure:
    remedy = "; name a key with --api-key or LINEWATCH_API_KEY" if error.status == 401 else ""
    return Failure(f"{error}{remedy}", WRONG_USE if error.code == "invalid_field" else FAILED)


def _cursor_lost(error: Any) -> Failure:
    return Failure(f"{error}; to continue, use --after {error.resume_after}", FAILED)


def _up(error: Any) -> Failure:
    return Failure(str(error), error.exit_code)


def _detached(error: Any) -> Failure:
    return Failure(str(error), INTERRUPTED)


def _wrong_use(error: Any) -> Failure:
    return Failure(str(error), WRONG_USE)


def _database(error: Any) -> Failure:
    reason = str(error.orig).strip().splitlines()[0]
    remedy = "see `linewatch doctor`"
    if "LINEWATCH_DATABASE_URL" not in os.environ:
        remedy = f"for a running `linewatch up`, name its data directory with --data DIR; {remedy}"
    return Failure(f"the database cannot be used: {reason} ({remedy})", FAILED)


def _schema(error: Any) -> Failure:
    reason = str(error.orig).strip().splitlines()[0]
    return Failure(f"the database does not match this version: {reason} (run `linewatch migrate`)", FAILED)


def _database_url(error: Any) -> Failure:
    return Failure(f"LINEWATCH_DATABASE_URL: {error} (use a URL like postgresql+psycopg://user@host/name)", WRONG_USE)


def _module(error: ModuleNotFoundError) -> Failure | None:
    missing = (error.name or "").partition(".")[0]
    if missing in ("torch", "torchvision", "safetensors", "scipy"):
        return Failure(f"this needs {missing}, which is not installed: pip install 'linewatch[worker]'", FAILED)
    return None


def _gpu(_: Any) -> Failure:
    return Failure("the GPU is out of memory: stop other programs that use it, or use --device cpu", FAILED)


def _system(error: OSError) -> Failure:
    if error.strerror is None:
        return _plain(error)
    prefix = f"{error.filename}: " if error.filename is not None else ""
    return Failure(f"{prefix}{error.strerror}", FAILED)


_FAMILIES: tuple[tuple[str, str, Callable[[Any], Failure | None]], ...] = (
    ("linewatch.cli.failures", "CommandFailed", _plain),
    ("linewatch.cli.failures", "WrongUse", _wrong_use),
    ("linewatch.cli.failures", "Detached", _detached),
    ("linewatch.cli.failures", "ClickException", _click),
    ("linewatch.errors", "CursorLost", _cursor_lost),
    ("linewatch.errors", "Refused", _refused),
    ("linewatch.errors", "BadAddress", _wrong_use),
    ("linewatch.errors", "BadKey", _wrong_use),
    ("linewatch.errors", "LinewatchError", _plain),
    ("linewatch.server.embedded", "UpError", _up),
    ("core.errors", "Refused", _plain),
    ("core.backup", "BackupError", _plain),
    ("core.vision.errors", "InvalidBundle", _plain),
    ("core.vision.training.dataset", "InvalidDataset", _plain),
    ("core.vision.training.group_by", "InvalidGroups", _wrong_use),
    ("core.vision.calibration.calibration", "SampleTooSmall", _plain),
    ("core.vision.training_options", "InvalidOptions", _wrong_use),
    ("core.vision.evaluation.evaluation", "ScoreNotFinite", _plain),
    ("core.vision.detectors.backbone", "WeightsNotFound", _plain),
    ("core.vision.bundle.state_dict", "InvalidStateDict", _plain),
    ("core.intake.image_decoding", "Undecodable", _plain),
    ("migrations.__main__", "MigrationError", _plain),
    ("core.settings", "SettingsError", _wrong_use),
    ("sqlalchemy.exc", "ProgrammingError", _schema),
    ("sqlalchemy.exc", "OperationalError", _database),
    ("sqlalchemy.exc", "ArgumentError", _database_url),
    ("torch", "OutOfMemoryError", _gpu),
    ("builtins", "ModuleNotFoundError", _module),
    ("builtins", "OSError", _system),
)
