"""`linewatch support-bundle`: an archive for a bug report, without secrets."""

from pathlib import Path

import click

from linewatch.cli.failures import WrongUse
from linewatch.cli.options import FOLDER_OR_FILE, connection_options, data_directory_option
from linewatch.cli.terminal import remark


@click.command("support-bundle")
@click.argument("file", type=FOLDER_OR_FILE, help="The archive to write, such as support.tar.gz.")
@click.option(
    "--log",
    "logs",
    type=FOLDER_OR_FILE,
    multiple=True,
    help="A log to include, such as the redirected output of `linewatch up`; may be repeated.",
)
@data_directory_option
@connection_options
def support_bundle(file: Path, logs: tuple[Path, ...], data: Path | None, url: str, api_key: str | None) -> None:
    """Write an archive for a bug report: versions, findings, settings, counts and recent logs.

    Passwords, keys and other secrets are removed, and it holds no images. Look at it before you send it.
    """
    from linewatch.server.commands.server_settings import settings_of
    from linewatch.server.doctor.bundle import write_bundle
    from linewatch.server.doctor.checks import Installation
    from linewatch.server.embedded.data import absolute
    from linewatch.server.up import default_data_directory

    if file.exists():
        raise WrongUse(f"{file} exists already: name another file")
    settings = settings_of(data)
    folder = absolute(default_data_directory() if data is None else data)
    kept = [path for path in sorted(folder.glob("logs/*.log")) if path.stat().st_size]
    names = write_bundle(Installation(settings, url, api_key), [*kept, *logs], folder, file)
    click.echo(str(file))
    if not any(name.startswith("logs/") for name in names):
        remark("It holds no log: name one with --log, such as the redirected output of `linewatch up`.")
