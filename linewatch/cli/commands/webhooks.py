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
    "drift.detected",
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
        click.option(
            "--recipe", "-r", "recipes", multiple=True, help="Only events of this recipe; may be repeated. [all]"
        ),
        click.option("--description", help="A description for display."),
        click.option("--max-group-size", type=click.IntRange(min=1, max=1000), help="The most events in one request."),
        click.option(
            "--max-group-delay-ms",
            type=click.IntRange(min=0, max=60_000),
            help="How long an event may wait for others, in milliseconds.",
        ),
    ]
)
"""Options for the parameters events, recipes, description, max_group_size and max_group_delay_ms."""


@webhooks.command("list")
@system_options
def list_endpoints(url: str, api_key: str | None, as_json: bool) -> None:
    """List the endpoints."""
    with client(url, api_key) as system:
        endpoints = system.endpoints()
    if as_json:
        print_json([endpoint_json(endpoint) for endpoint in endpoints])
        return
    print_table(
        ["url", "state", "events", "recipes", "id"],
        [
            [
                endpoint.url,
                describe_state(endpoint),
                ", ".join(endpoint.events),
                ", ".join(endpoint.recipes or []) or "all",
                endpoint.id,
            ]
            for endpoint in endpoints
        ],
    )


def endpoint_json(endpoint: "Endpoint") -> dict[str, Any]:
    """Return an endpoint as JSON, without its secret, which is shown only when it is created or rotated."""
    hidden = ("secret", "previous_secret_until")
    return {name: value for name, value in endpoint.document.items() if name not in hidden}


def describe_state(endpoint: "Endpoint") -> str:
    """Describe the state of an endpoint."""
    if endpoint.state == "disabled":
        return f"disabled: {endpoint.disabled_because}" if endpoint.disabled_because else "disabled"
    if endpoint.failing_since is not None:
        return f"failing since {endpoint.failing_since.astimezone():%Y-%m-%d %H:%M}"
    return endpoint.state


@webhooks.command()
@click.argument("address", metavar="URL", help="The URL that receives the events.")
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

    Prints its secret, which cannot be shown again. Without --event, it only receives callbacks.
    """
    with client(url, api_key) as system:
        endpoint = system.create_endpoint(
            address,
            events,
            recipes=recipes or None,
            description=description or "",
            max_group_size=max_group_size or 1,
            max_group_delay_ms=max_group_delay_ms or 0,
        )
    _print_secret(endpoint, as_json)


@webhooks.command()
@_endpoint_argument
@system_options
def show(endpoint_id: str, url: str, api_key: str | None, as_json: bool) -> None:
    """Show one endpoint."""
    with client(url, api_key) as system:
        endpoint = system.endpoint(endpoint_id)
    _print_endpoint(endpoint, as_json)


@webhooks.command()
@_endpoint_argument
@click.option("--endpoint-url", "--to", "address", metavar="URL", help="The new URL.")
@_subscription_options
@click.option("--all-recipes", is_flag=True, help="Receive events of all recipes.")
@click.option("--state", type=click.Choice(["enabled", "disabled"]), help="Enable or disable it.")
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
    """Change an endpoint. Options that you omit stay as they are."""
    if recipes and all_recipes:
        raise WrongUse("--recipe and --all-recipes exclude each other: use only one of them")
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
            "name a change, such as --endpoint-url or --state enabled; --url is the address of the running system"
        )
    with client(url, api_key) as system:
        changed = system.change_endpoint(endpoint_id, **changes)
    _print_endpoint(changed, as_json)


@webhooks.command()
@_endpoint_argument
@system_options
def delete(endpoint_id: str, url: str, api_key: str | None, as_json: bool) -> None:
    """Delete an endpoint. Its pending deliveries are not sent."""
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
    """Give an endpoint a new secret and print it. For a while, the previous secret also signs requests."""
    with client(url, api_key) as system:
        _print_secret(system.rotate_secret(endpoint_id), as_json)


@webhooks.command("test")
@_endpoint_argument
@click.option("--wait", type=click.FloatRange(min=0), default=30, help="Seconds to wait for the outcome.")
@system_options
def send_test(endpoint_id: str, wait: float, url: str, api_key: str | None, as_json: bool) -> None:
    """Send the event endpoint.test to an endpoint and print the outcome.

    Exits with 1 if the endpoint did not accept it.
    """
    with client(url, api_key) as system:
        sent = system.test_endpoint(endpoint_id, wait=wait)
    if as_json:
        print_json(sent.document)
    if not sent.attempts:
        raise CommandFailed(
            f"nothing was sent to {sent.url} for {wait:g} s: is an io worker running? "
            f"See later with `linewatch webhooks deliveries {endpoint_id}`"
        )
    if sent.state != "delivered":
        raise CommandFailed(f"{sent.url} did not accept the test event: {_outcome(sent)}")
    if not as_json:
        click.echo(f"{sent.url} accepted the test event: {_outcome(sent)}")


@webhooks.command()
@_endpoint_argument
@click.option("--state", type=click.Choice(["pending", "delivered", "exhausted", "cancelled"]), help="Only this state.")
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
    """List the deliveries of an endpoint, newest first.

    With --json, prints one JSON object per line, with every try.
    """
    with client(url, api_key) as system:
        listed = islice(system.deliveries(endpoint_id, state=state, page_size=min(limit, _PAGE)), limit)
        if as_json:
            for delivery in listed:
                print_json(delivery.document)
            return
        print_table(
            ["occurred", "event", "state", "tries", "outcome", "id"],
            [
                [
                    f"{delivery.occurred_at.astimezone():%Y-%m-%d %H:%M:%S}",
                    delivery.event,
                    delivery.state,
                    delivery.tries,
                    _outcome(delivery),
                    delivery.id,
                ]
                for delivery in listed
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
    occurred_at = f"{sent.occurred_at.astimezone():%Y-%m-%d %H:%M:%S}"
    remark(f"The event {sent.event} of {occurred_at} is sent to {sent.url} again.")


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
    remark(f"This is the secret of endpoint {endpoint.id} for {endpoint.url}. Store it now: it is not shown again.")
    if endpoint.previous_secret_until is not None:
        until = f"{endpoint.previous_secret_until.astimezone():%Y-%m-%d %H:%M}"
        remark(f"The previous secret also signs requests until {until}.")


def _outcome(delivery: "Delivery") -> str | None:
    """Describe the outcome of the latest try; None before the first."""
    if not delivery.attempts:
        return None
    newest = delivery.attempts[-1]
    status = f" {newest.status}" if newest.status is not None else ""
    answer = f": {newest.answer.strip()[:100]}" if newest.answer.strip() and newest.outcome != "delivered" else ""
    return f"{newest.outcome}{status} in {newest.duration_ms:.0f} ms{answer}"
