"""`linewatch rescore activate` and `rollback`: put a run's version and threshold in force, or take them back."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from linewatch.cli.commands.rescoring.run_lookup import find_run_id, run_argument
from linewatch.cli.failures import WrongUse
from linewatch.cli.options import AnyFunction, client, system_options
from linewatch.cli.terminal import print_json, print_table, remark

if TYPE_CHECKING:
    from linewatch.types.rescoring import RunActivation

_SHARES = ("max_new_false_rejects", "max_new_rejects", "max_missed", "max_failures")


def _share(name: str, help: str) -> Callable[[AnyFunction], AnyFunction]:  # noqa: A002 - click's name
    return click.option(name, type=click.FloatRange(min=0, max=1), help=help)


@click.command("activate")
@run_argument
@_share("--max-new-false-rejects", "Of the parts reviewed ok: the share that may be ng now and was not before.")
@_share("--max-new-rejects", "Of the images with a verdict before: the share that may go from ok to ng.")
@_share("--max-missed", "Of the parts reviewed ng: the share that may be ok now and was not before.")
@_share("--max-failures", "Of all images: the share that may have failed to be scored.")
@click.option("--min-reviewed-ok", type=click.IntRange(min=1), help="At least this many parts were reviewed ok.")
@click.option("--min-reviewed-ng", type=click.IntRange(min=1), help="At least this many parts were reviewed ng.")
@click.option("--confident", is_flag=True, help="Judge each share by its upper 95 % confidence bound.")
@system_options
def activate(
    run: str,
    min_reviewed_ok: int | None,
    min_reviewed_ng: int | None,
    confident: bool,
    url: str,
    api_key: str | None,
    as_json: bool,
    **shares: float | None,
) -> None:
    """Activate the version and threshold of a run, if it meets the limits that you set."""
    if all(limit is None for limit in shares.values()):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in _SHARES)
        raise WrongUse(f"a gate needs a limit: name at least one of {options}")
    from linewatch.errors import GateNotMet

    with client(url, api_key) as system:
        try:
            activation = system.activate_run(
                find_run_id(system, run),
                **shares,
                min_reviewed_ok=min_reviewed_ok,
                min_reviewed_ng=min_reviewed_ng,
                confident=confident,
            )
        except GateNotMet as refused:
            _print_gate(refused.gate, as_json)
            raise
    if as_json:
        print_json(activation.document)
        return
    _print_gate([outcome.document for outcome in activation.gate], as_json)
    _print_scoring(activation)


@click.command("rollback")
@run_argument
@system_options
def rollback(run: str, url: str, api_key: str | None, as_json: bool) -> None:
    """Undo the activation of a run: return to the version and thresholds before it."""
    with client(url, api_key) as system:
        activation = system.rollback_run(find_run_id(system, run))
    if as_json:
        print_json(activation.document)
        return
    _print_scoring(activation)


def _print_scoring(activation: "RunActivation") -> None:
    version = activation.model_version
    remark(
        f"Version {version.version} of recipe {version.recipe} is active now, "
        f"with the threshold {version.threshold.threshold:.6g}."
    )


def _print_gate(gate: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Print every rule with its limit and the run's value; in JSON, the result of a rejected activation."""
    if as_json:
        print_json({"activated": False, "gate": list(gate)})
        return
    print_table(
        ["rule", "limit", "measured", "count", "of", "95 % bound", "met"],
        [
            [
                outcome["rule"],
                _value(outcome["rule"], outcome["limit"]),
                _value(outcome["rule"], outcome["measured"]),
                outcome["count"],
                outcome["of"],
                _value(outcome["rule"], outcome["bound"]),
                "yes" if outcome["met"] else f"no: {outcome['detail']}" if outcome["detail"] else "no",
            ]
            for outcome in gate
        ],
        right=["limit", "measured", "count", "of", "95 % bound"],
    )


def _value(rule: str, value: float | None) -> str | None:
    """Format a share in percent, or a number of parts."""
    if value is None:
        return None
    return f"{value:.3%}" if rule in _SHARES else f"{value:g}"
