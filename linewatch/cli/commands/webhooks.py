"""`linewatch webhooks`: endpoints and their deliveries."""

from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from linewatch.cli.failures import CommandFailed, WrongUse
from linewatch.cli.options import DEFAULT_URL, ApiKey, AsJson, Url, client
from linewatch.cli.terminal import print_json, print_table, remark, results

if TYPE_CHECKING:
    from linewatch.client import EndpointChanges
    from linewatch.types.results import Delivery, Endpoint

_PAGE = 100

app = typer.Typer(help="Webhook endpoints and their deliveries.")


class Event(StrEnum):
    """The events that an endpoint can subscribe to."""

    INSPECTION_COMPLETED = "inspection.completed"
    INSPECTION_FAILED = "inspection.failed"
    INSPECTION_REVIEWED = "inspection.reviewed"
    BATCH_COMPLETED = "batch.completed"
    RESCORE_RUN_PROGRESS = "rescore_run.progress"
    RESCORE_RUN_COMPLETED = "rescore_run.completed"
    RESCORE_RUN_FAILED = "rescore_run.failed"
    MODEL_ACTIVATED = "model.activated"


EndpointId = Annotated[str, typer.Argument(metavar="ID", help="The endpoint's id.")]
Events = Annotated[
    list[Event] | None,
    typer.Option("--event", help="An event to subscribe to; may be repeated."),
]
Recipes = Annotated[list[str] | None, typer.Option("--recipe", "-r", help="Only events of it; may be repeated. [all]")]
Description = Annotated[str | None, typer.Option("--description", help="For people.")]
GroupSize = Annotated[
    int | None, typer.Option("--max-group-size", min=1, max=1000, help="Events in one request, at most.")
]
GroupDelay = Annotated[
    int | None,
    typer.Option(
        "--max-group-delay-ms", min=0, max=60_000, help="How long an event may wait for others, milliseconds."
    ),
]


@app.command("list")
def list_endpoints(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
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
    return one.model_dump(mode="json", exclude={"secret", "previous_secret_until"})


def describe_state(one: "Endpoint") -> str:
    """How an endpoint is, for people."""
    if one.state == "disabled":
        return f"disabled: {one.disabled_because}" if one.disabled_because else "disabled"
    if one.failing_since is not None:
        return f"failing since {one.failing_since.astimezone():%Y-%m-%d %H:%M}"
    return one.state


@app.command()
def create(
    address: Annotated[str, typer.Argument(metavar="URL", help="Where to.")],
    events: Events = None,
    recipes: Recipes = None,
    description: Description = None,
    max_group_size: GroupSize = None,
    max_group_delay_ms: GroupDelay = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Register a URL that receives events.

    Its secret is printed once and cannot be had again. Without --event it is there for callbacks only.
    """
    with client(url, api_key) as system:
        made = system.create_endpoint(
            address,
            events or [],
            recipes=recipes or None,
            description=description or "",
            max_group_size=max_group_size or 1,
            max_group_delay_ms=max_group_delay_ms or 0,
        )
    _print_secret(made, as_json)


@app.command()
def show(endpoint_id: EndpointId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Show one endpoint."""
    with client(url, api_key) as system:
        found = system.endpoint(endpoint_id)
    _print_endpoint(found, as_json)


@app.command()
def update(
    endpoint_id: EndpointId,
    address: Annotated[str | None, typer.Option("--endpoint-url", "--to", metavar="URL", help="Where to.")] = None,
    events: Events = None,
    recipes: Recipes = None,
    all_recipes: Annotated[bool, typer.Option("--all-recipes", help="Events of every recipe.")] = False,
    description: Description = None,
    state: Annotated[
        Literal["enabled", "disabled"] | None, typer.Option("--state", help="Revive or disable it.")
    ] = None,
    max_group_size: GroupSize = None,
    max_group_delay_ms: GroupDelay = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Change an endpoint; what is not named stays."""
    if recipes and all_recipes:
        raise WrongUse("--recipe and --all-recipes exclude each other: leave one of them out")
    changes: EndpointChanges = {"recipes": None} if all_recipes else {}
    if address is not None:
        changes["url"] = address
    if events:
        changes["events"] = events
    if recipes:
        changes["recipes"] = recipes
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


@app.command()
def delete(endpoint_id: EndpointId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Delete an endpoint; what was not delivered to it yet never will be."""
    with client(url, api_key) as system:
        system.delete_endpoint(endpoint_id)
    if as_json:
        print_json({"id": endpoint_id, "deleted": True})
        return
    remark(f"The endpoint {endpoint_id} is deleted.")


@app.command("rotate-secret")
def rotate_secret(
    endpoint_id: EndpointId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Give an endpoint a new secret. It is printed once; the one before signs too for a while."""
    with client(url, api_key) as system:
        _print_secret(system.rotate_secret(endpoint_id), as_json)


@app.command("test")
def send_test(
    endpoint_id: EndpointId,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the outcome.")] = 30,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Send an endpoint an event, endpoint.test, and say what came of it.

    1 if it was not taken.
    """
    with client(url, api_key) as system:
        sent = system.test_endpoint(endpoint_id, wait=wait)
    if as_json:
        print_json(sent.model_dump(mode="json"))
    if not sent.attempts:
        raise CommandFailed(
            f"nothing was sent to {sent.url} for {wait:g} s: does the io worker run? "
            f"Later: `linewatch webhooks deliveries {endpoint_id}`"
        )
    if sent.state != "delivered":
        raise CommandFailed(f"{sent.url} did not take it: {_outcome(sent)}")
    if not as_json:
        results().print(f"{sent.url} took it: {_outcome(sent)}", markup=False)


@app.command()
def deliveries(
    endpoint_id: EndpointId,
    state: Annotated[
        Literal["pending", "delivered", "exhausted", "cancelled"] | None, typer.Option("--state", help="Only these.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List what was or will be sent to an endpoint, newest first.

    With --json one a line, with every try.
    """
    with client(url, api_key) as system:
        found = islice(system.deliveries(endpoint_id, state=state, page_size=min(limit, _PAGE)), limit)
        if as_json:
            for one in found:
                print_json(one.model_dump(mode="json"))
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


@app.command()
def replay(
    delivery_id: Annotated[str, typer.Argument(metavar="DELIVERY_ID", help="The delivery's id, as listed.")],
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Send a delivery again, under the same webhook-id."""
    with client(url, api_key) as system:
        sent = system.replay(delivery_id)
    if as_json:
        print_json(sent.model_dump(mode="json"))
        return
    remark(f"The {sent.event} of {sent.occurred_at.astimezone():%Y-%m-%d %H:%M:%S} is sent to {sent.url} again.")


def _print_endpoint(endpoint: "Endpoint", as_json: bool) -> None:
    if as_json:
        print_json(endpoint_json(endpoint))
        return
    for name, value in endpoint_json(endpoint).items():
        if value not in (None, [], ""):
            results().print(f"{name:18} {value}", markup=False)


def _print_secret(endpoint: "Endpoint", as_json: bool) -> None:
    if as_json:
        print_json(endpoint.model_dump(mode="json"))
        return
    typer.echo(endpoint.secret)
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
