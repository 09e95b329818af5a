"""`linewatch rescore activate` and `rollback`: from what a run has shown to what scores."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linewatch.cli.commands.rescoring.run_lookup import RunId, find_run_id
from linewatch.cli.failures import WrongUse
from linewatch.cli.options import DEFAULT_URL, ApiKey, AsJson, Url, client
from linewatch.cli.terminal import print_json, print_table, remark

if TYPE_CHECKING:
    from linewatch.types.rescoring import RunActivation

_SHARES = ("max_new_false_rejects", "max_new_rejects", "max_missed", "max_failures")


def _share(said: str) -> Any:
    return typer.Option(min=0, max=1, help=said)


def _number(said: str) -> Any:
    return typer.Option(min=1, help=said)


def activate(
    run: RunId,
    max_new_false_rejects: Annotated[
        float | None, _share("Of the parts reviewed ok: the share that may be ng now and was not before.")
    ] = None,
    max_new_rejects: Annotated[
        float | None, _share("Of the images with a verdict before: the share that may go from ok to ng.")
    ] = None,
    max_missed: Annotated[
        float | None, _share("Of the parts reviewed ng: the share that may be ok now and was not before.")
    ] = None,
    max_failures: Annotated[float | None, _share("Of all images: the share that may have failed to be scored.")] = None,
    min_reviewed_ok: Annotated[int | None, _number("So many parts must have been reviewed ok.")] = None,
    min_reviewed_ng: Annotated[int | None, _number("So many parts must have been reviewed ng.")] = None,
    confident: Annotated[
        bool, typer.Option("--confident", help="Judge each share by its upper bound with 95 % confidence.")
    ] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Let what a run assessed score, its version and its threshold, if it meets the limits that are named."""
    shares = dict(zip(_SHARES, (max_new_false_rejects, max_new_rejects, max_missed, max_failures), strict=True))
    if all(limit is None for limit in shares.values()):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in _SHARES)
        raise WrongUse(f"a gate needs a limit: name at least one of {options}")
    from linewatch.errors import GateNotMet

    with client(url, api_key) as system:
        try:
            done = system.activate_run(
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
        print_json(done.model_dump(mode="json"))
        return
    _print_gate([one.model_dump(mode="json") for one in done.gate], as_json)
    _print_scoring(done)


def rollback(run: RunId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Go one step back behind the activation of a run: to the version and the thresholds of before."""
    with client(url, api_key) as system:
        done = system.rollback_run(find_run_id(system, run))
    if as_json:
        print_json(done.model_dump(mode="json"))
        return
    _print_scoring(done)


def _print_scoring(done: "RunActivation") -> None:
    version = done.model_version
    remark(
        f"Version {version.version} of recipe {version.recipe} scores now, "
        f"with the threshold {version.threshold.threshold:.6g}."
    )


def _print_gate(gate: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Every rule with its limit and what the run has; in JSON what a refused activation answers."""
    if as_json:
        print_json({"activated": False, "gate": list(gate)})
        return
    print_table(
        ["rule", "limit", "measured", "count", "of", "95 % bound", "met"],
        [
            [
                one["rule"],
                _value(one["rule"], one["limit"]),
                _value(one["rule"], one["measured"]),
                one["count"],
                one["of"],
                _value(one["rule"], one["bound"]),
                "yes" if one["met"] else f"no: {one['detail']}" if one["detail"] else "no",
            ]
            for one in gate
        ],
        right=["limit", "measured", "count", "of", "95 % bound"],
    )


def _value(rule: str, value: float | None) -> str | None:
    """A share in percent, or a number of parts."""
    if value is None:
        return None
    return f"{value:.3%}" if rule in _SHARES else f"{value:g}"
