"""`linewatch webhooks`: endpoints and their deliveries."""

from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import click

from linewatch.cli.failures import CommandFailed, WrongUse
from linewatch.cli.groups import group
from linewatch.cli.options import client, limit_option, system_options, together
from linewatch.cli.terminal import print_fields, print_json, print_table, remark

if TYPE_CHECKING:
    from linewatch.client import EndpointChanges
    from linewatch.types.results import Delivery, Endpoint

_PAGE = 100

webhooks = group("webhooks", help="Webhook endpoints and their deliveries.")


_EVENTS = (
    "inspection.completed",
    "inspection.failed",
    "inspection.reviewed",
    "batch.completed",
    "rescore_run.progress",
    "rescore_run.completed",
    "rescore_run.failed",
    "model.activated",
)

_endpoint_argument = click.argument("endpoint_id", metavar="ID", help="The endpoint's id.")
_subscription_options = together(
    [
        click.option(
            "--event",
            "events",
            type=click.Choice(_EVENTS),
            multiple=True,
            help="An event to subscribe to; may be repeated.",
        ),
        click.option("--recipe", "-r", "recipes", multiple=True, help="Only events of it; may be repeated. [all]"),
        click.option("--description", help="A note for people."),
        click.option("--max-group-size", type=click.IntRange(min=1, max=1000), help="Events in one request, at most."),
        click.option(
            "--max-group-delay-ms",
            type=click.IntRange(min=0, max=60_000),
            help="How long an event may wait for others, milliseconds.",
        ),
    ]
)
"""For the parameters events, recipes, description, max_group_size and max_group_delay_ms."""


@webhooks.command("list")
@system_options
def list_endpoints(url: str, api_key: str | None, as_json: bool) -> None:
    """List the endpoints."""
    with client(url, api_key) as system:
        found = system.endpoints()
    if as_json:
        print_json([endpoint_json(one) for one in found])
        return
    print_table(
        ["url", "state", "events", "recipes", "id"],
        [
            [one.url, describe_state(one), ", ".join(one.events), ", ".join(one.recipes or []) or "all", one.id]
            for one in found
        ],
    )


def endpoint_json(one: "Endpoint") -> dict[str, Any]:
    """An endpoint as JSON, without its secret, which is shown only when it is created."""
    return {name: value for name, value in one.document.items() if name not in ("secret", "previous_secret_until")}


def describe_state(one: "Endpoint") -> str:
    """How an endpoint is, for people."""
    if one.state == "disabled":
        return f"disabled: {one.disabled_because}" if one.disabled_because else "disabled"
    if one.failing_since is not None:
        return f"failing since {one.failing_since.astimezone():%Y-%m-%d %H:%M}"
    return one.state


@webhooks.command()
@click.argument("address", metavar="URL", help="Where to.")
@_subscription_options
@system_options
def create(
    address: str,
    events: tuple[str, ...],
    recipes: tuple[str, ...],
    description: str | None,
    max_group_size: int | None,
    max_group_delay_ms: int | None,
    url: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Register a URL that receives events.

    Its secret is printed once and cannot be had again. Without --event it is there for callbacks only.
    """
    with client(url, api_key) as system:
        made = system.create_endpoint(
            address,
            events,
            recipes=recipes or None,
            description=description or "",
            max_group_size=max_group_size or 1,
            max_group_delay_ms=max_group_delay_ms or 0,
        )
    _print_secret(made, as_json)


@webhooks.command()
@_endpoint_argument
@system_options
def show(endpoint_id: str, url: str, api_key: str | None, as_json: bool) -> None:
    """Show one endpoint."""
    with client(url, api_key) as system:
        found = system.endpoint(endpoint_id)
    _print_endpoint(found, as_json)


@webhooks.command()
@_endpoint_argument
@click.option("--endpoint-url", "--to", "address", metavar="URL", help="Where to.")
@_subscription_options
@click.option("--all-recipes", is_flag=True, help="Events of every recipe.")
@click.option("--state", type=click.Choice(["enabled", "disabled"]), help="Revive or disable it.")
@system_options
def update(
    endpoint_id: str,
    address: str | None,
    events: tuple[str, ...],
    recipes: tuple[str, ...],
    all_recipes: bool,
    description: str | None,
    state: Literal["enabled", "disabled"] | None,
    max_group_size: int | None,
    max_group_delay_ms: int | None,
    url: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Change an endpoint; what is not named stays."""
    if recipes and all_recipes:
        raise WrongUse("--recipe and --all-recipes exclude each other: leave one of them out")
    changes: EndpointChanges = {"recipes": None} if all_recipes else {}
    if address is not None:
        changes["url"] = address
    if events:
        changes["events"] = list(events)
    if recipes:
        changes["recipes"] = list(recipes)
    if description is not None:
        changes["description"] = description
    if state is not None:
        changes["state"] = state
    if max_group_size is not None:
        changes["max_group_size"] = max_group_size
    if max_group_delay_ms is not None:
        changes["max_group_delay_ms"] = max_group_delay_ms
    if not changes:
        raise WrongUse(
            "nothing to change was named, such as --endpoint-url or --state enabled; --url is where Linewatch runs"
        )
    with client(url, api_key) as system:
        changed = system.change_endpoint(endpoint_id, **changes)
    _print_endpoint(changed, as_json)


@webhooks.command()
@_endpoint_argument
@system_options
def delete(endpoint_id: str, url: str, api_key: str | None, as_json: bool) -> None:
    """Delete an endpoint; what was not delivered to it yet never will be."""
    with client(url, api_key) as system:
        system.delete_endpoint(endpoint_id)
    if as_json:
        print_json({"id": endpoint_id, "deleted": True})
        return
    remark(f"The endpoint {endpoint_id} is deleted.")


@webhooks.command("rotate-secret")
@_endpoint_argument
@system_options
def rotate_secret(endpoint_id: str, url: str, api_key: str | None, as_json: bool) -> None:
    """Give an endpoint a new secret. It is printed once; the one before signs too for a while."""
    with client(url, api_key) as system:
        _print_secret(system.rotate_secret(endpoint_id), as_json)


@webhooks.command("test")
@_endpoint_argument
@click.option("--wait", type=click.FloatRange(min=0), default=30, help="Seconds to wait for the outcome.")
@system_options
def send_test(endpoint_id: str, wait: float, url: str, api_key: str | None, as_json: bool) -> None:
    """Send an endpoint an event, endpoint.test, and say what came of it.

    1 if it was not taken.
    """
    with client(url, api_key) as system:
        sent = system.test_endpoint(endpoint_id, wait=wait)
    if as_json:
        print_json(sent.document)
    if not sent.attempts:
        raise CommandFailed(
            f"nothing was sent to {sent.url} for {wait:g} s: does the io worker run? "
            f"Later: `linewatch webhooks deliveries {endpoint_id}`"
        )
    if sent.state != "delivered":
        raise CommandFailed(f"{sent.url} did not take it: {_outcome(sent)}")
    if not as_json:
        click.echo(f"{sent.url} took it: {_outcome(sent)}")


@webhooks.command()
@_endpoint_argument
@click.option("--state", type=click.Choice(["pending", "delivered", "exhausted", "cancelled"]), help="Only these.")
@limit_option
@system_options
def deliveries(
    endpoint_id: str,
    state: Literal["pending", "delivered", "exhausted", "cancelled"] | None,
    limit: int,
    url: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    """List what was or will be sent to an endpoint, newest first.

    With --json one a line, with every try.
    """
    with client(url, api_key) as system:
        found = islice(system.deliveries(endpoint_id, state=state, page_size=min(limit, _PAGE)), limit)
        if as_json:
            for one in found:
                print_json(one.document)
            return
        print_table(
            ["occurred", "event", "state", "tries", "outcome", "id"],
            [
                [
                    f"{one.occurred_at.astimezone():%Y-%m-%d %H:%M:%S}",
                    one.event,
                    one.state,
                    one.tries,
                    _outcome(one),
                    one.id,
                ]
                for one in found
            ],
            right=["tries"],
        )


@webhooks.command()
@click.argument("delivery_id", metavar="DELIVERY_ID", help="The delivery's id, as listed.")
@system_options
def replay(delivery_id: str, url: str, api_key: str | None, as_json: bool) -> None:
    """Send a delivery again, under the same webhook-id."""
    with client(url, api_key) as system:
        sent = system.replay(delivery_id)
    if as_json:
        print_json(sent.document)
        return
    remark(f"The {sent.event} of {sent.occurred_at.astimezone():%Y-%m-%d %H:%M:%S} is sent to {sent.url} again.")


def _print_endpoint(endpoint: "Endpoint", as_json: bool) -> None:
    if as_json:
        print_json(endpoint_json(endpoint))
        return
    print_fields(endpoint_json(endpoint))


def _print_secret(endpoint: "Endpoint", as_json: bool) -> None:
    if as_json:
        print_json(endpoint.document)
        return
    click.echo(endpoint.secret)
    remark(f"This is the secret of the endpoint {endpoint.id}, for {endpoint.url}. Keep it: it is not shown again.")
    if endpoint.previous_secret_until is not None:
        remark(f"The one before signs too until {endpoint.previous_secret_until.astimezone():%Y-%m-%d %H:%M}.")


def _outcome(delivery: "Delivery") -> str | None:
    """What came of the newest try; None before the first."""
    if not delivery.attempts:
        return None
    newest = delivery.attempts[-1]
    status = f" {newest.status}" if newest.status is not None else ""
    said = f": {newest.answer.strip()[:100]}" if newest.answer.strip() and newest.outcome != "delivered" else ""
    return f"{newest.outcome}{status} in {newest.duration_ms:.0f} ms{said}"
