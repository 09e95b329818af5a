"""`linewatch status`."""

import click

from linewatch.cli.commands.models import threshold_text
from linewatch.cli.commands.webhooks import describe_state, endpoint_json
from linewatch.cli.options import client, system_options
from linewatch.cli.terminal import print_json, print_table


@click.command("status")
@system_options
def status(url: str, api_key: str | None, as_json: bool) -> None:
    """Show a running system and its recipes.

    Also shows feed consumers that are behind, and webhook endpoints that are disabled or failing. Exits with 1 if the
    system takes no work.
    """
    with client(url, api_key) as system:
        ready = system.ready()
        recipes = system.recipes() if ready else []
        behind = [one for one in system.consumers() if one.behind] if ready else []
        silent = [one for one in system.endpoints() if one.state == "disabled" or one.failing_since] if ready else []
        active = {
            one.name: system.model_version(one.name, one.active_version)
            for one in recipes
            if one.active_version is not None
        }
    if as_json:
        print_json(
            {
                "url": system.url,
                "ready": ready,
                "recipes": [one.document for one in recipes],
                "active_versions": [one.document for one in active.values()],
                "consumers_behind": [one.document for one in behind],
                "silent_endpoints": [endpoint_json(one) for one in silent],
            }
        )
    else:
        click.echo(f"{system.url} {'takes work' if ready else 'is not ready (see `linewatch doctor`)'}")
        if recipes:
            print_table(
                ["recipe", "state", "version", "threshold"],
                [
                    [one.name, one.state, one.active_version, threshold_text(active[one.name].threshold)]
                    if one.name in active
                    else [one.name, one.state, None, None]
                    for one in recipes
                ],
            )
        for consumer in behind:
            since = f"{consumer.acknowledged_at.astimezone():%Y-%m-%d %H:%M:%S}"
            click.echo(f"Consumer {consumer.name} is {consumer.behind} behind; it last acknowledged {since}.")
        for endpoint in silent:
            click.echo(f"Webhook endpoint {endpoint.url} ({endpoint.id}) is {describe_state(endpoint)}.")
    if not ready:
        raise click.exceptions.Exit(1)
