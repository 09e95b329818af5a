"""`linewatch doctor`: check what the system needs, and print what is wrong and what to do."""

import os
from dataclasses import asdict
from pathlib import Path

import click

from linewatch.cli.options import data_directory_option, system_options
from linewatch.cli.terminal import print_json, print_table, remark
from linewatch.server.doctor.findings import Finding, exit_status, worst


@click.command("doctor")
@data_directory_option
@system_options
def doctor(data: Path | None, url: str, api_key: str | None, as_json: bool) -> None:
    """Check the settings, the servers, the machine and the api, also while some of them are down.

    Prints the settings, the result of each check, and what to do. Exits with 1 if
    something required does not work.
    """
    from linewatch.server.commands.server_settings import settings_of
    from linewatch.server.doctor.checks import Installation, examine
    from linewatch.server.doctor.redaction import masked

    settings = settings_of(data)
    findings = examine(Installation(settings, url, api_key))
    shown = {name: masked(value) for name, value in settings}
    if as_json:
        listed = [asdict(finding) for finding in findings]
        print_json({"status": worst(findings), "settings": shown, "findings": listed})
    else:
        _print(shown, findings)
    raise click.exceptions.Exit(exit_status(findings))


def _print(shown: dict[str, str | int | float | None], findings: list[Finding]) -> None:
    print_table(
        ["setting", "value", ""],
        [
            [f"LINEWATCH_{name.upper()}", value, "set" if f"LINEWATCH_{name.upper()}" in os.environ else ""]
            for name, value in shown.items()
        ],
    )
    click.echo()
    print_table(["", "", "found"], [[finding.what, finding.level, finding.found] for finding in findings])
    for finding in findings:
        if finding.remedy:
            remark(f"{finding.what}: {finding.remedy}")
