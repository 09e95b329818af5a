"""`linewatch status`."""

from typing import TYPE_CHECKING

import click

from linewatch.cli.commands.models import threshold_text
from linewatch.cli.commands.webhooks import describe_state, endpoint_json
from linewatch.cli.options import client, system_options
from linewatch.cli.terminal import print_json, print_table
from linewatch.errors import Refused

if TYPE_CHECKING:
    from linewatch.client import Client
    from linewatch.types.system import Health


@click.command("status")
@system_options
def status(url: str, api_key: str | None, as_json: bool) -> None:
    """Show a running system and its recipes.

    Also shows its health, feed consumers that are behind, and webhook endpoints that are disabled or failing. Exits
    with 1 if the system is not ready.
    """
    with client(url, api_key) as system:
        ready = system.ready()
        health = _health(system) if ready else None
        recipes = system.recipes() if ready else []
        consumers = system.consumers() if ready else []
        endpoints = system.endpoints() if ready else []
        behind = [consumer for consumer in consumers if consumer.behind]
        silent = [endpoint for endpoint in endpoints if endpoint.state == "disabled" or endpoint.failing_since]
        active = {
            recipe.name: system.model_version(recipe.name, recipe.active_version)
            for recipe in recipes
            if recipe.active_version is not None
        }
    if as_json:
        print_json(
            {
                "url": system.url,
                "ready": ready,
                "health": None if health is None else health.document,
                "recipes": [recipe.document for recipe in recipes],
                "active_versions": [version.document for version in active.values()],
                "consumers_behind": [consumer.document for consumer in behind],
                "silent_endpoints": [endpoint_json(endpoint) for endpoint in silent],
            }
        )
    else:
        click.echo(f"{system.url} {'is ready' if ready else 'is not ready (see `linewatch doctor`)'}")
        if health is not None:
            click.echo(" ".join([f"Health: {health.status}.", *health.reasons]))
        if recipes:
            print_table(
                ["recipe", "state", "version", "threshold"],
                [
                    [recipe.name, recipe.state, recipe.active_version, threshold_text(active[recipe.name].threshold)]
                    if recipe.name in active
                    else [recipe.name, recipe.state, None, None]
                    for recipe in recipes
                ],
            )
        for consumer in behind:
            since = f"{consumer.acknowledged_at.astimezone():%Y-%m-%d %H:%M:%S}"
            click.echo(f"Consumer {consumer.name} is {consumer.behind} behind; it last acknowledged {since}.")
        for endpoint in silent:
            click.echo(f"Webhook endpoint {endpoint.url} ({endpoint.id}) is {describe_state(endpoint)}.")
    if not ready:
        raise click.exceptions.Exit(1)


def _health(system: "Client") -> "Health | None":
    """The health of the system; None if it is of an earlier version, which does not say."""
    try:
        return system.system().health
    except Refused as refused:
        if refused.code != "not_found":
            raise
        return None
