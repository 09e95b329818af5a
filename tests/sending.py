"""What tests of sending webhooks have in common: endpoints, a sender, and looks at what became of deliveries."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import Engine, text

from core.delivery import deliveries
from core.delivery.deliveries import Delivery
from core.settings import Settings
from tests.receivers import DEADLINE_SECONDS, SECRET
from worker.delivery.webhooks import Sender


def register(engine: Engine, url: str, **columns: Any) -> UUID:
    """An endpoint with a secret that is known here."""
    own = {"url": url, "secret": SECRET, "events": ["inspection.completed", "model.activated"], **columns}
    names = ", ".join(own)
    values = ", ".join(f":{name}" for name in own)
    with engine.begin() as connection:
        made = connection.execute(
            text(f"INSERT INTO webhook_endpoints ({names}) VALUES ({values}) RETURNING id"),  # noqa: S608 - names of ours
            own,
        )
        return UUID(str(made.scalar_one()))


@contextmanager
def sending(settings: Settings, *urls: str, **own: Any) -> Iterator[None]:
    """A sender that may call these addresses; it tries again after hardly any time unless told otherwise."""
    allowed = ",".join(urlsplit(url).netloc for url in urls)
    configuration = {"webhook_retry_seconds": (0.1,) * 7, "webhook_allow": allowed, **own}
    sender = Sender(settings.model_copy(update=configuration))
    sender.start()
    try:
        yield
    finally:
        sender.stop()


def only(engine: Engine, endpoint_id: UUID) -> Delivery:
    with engine.begin() as connection:
        [found], _ = deliveries.list_page(connection, endpoint_id, state=None, before=None, limit=10)
        return found


def eventually(look: Callable[[], Any], wanted: Any) -> None:
    """Look until this is seen."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (seen := look()) != wanted:
        assert time.monotonic() < deadline, f"{seen!r} instead of {wanted!r}"
        time.sleep(0.02)


def endpoint_state(engine: Engine, endpoint_id: UUID) -> tuple[str, str | None]:
    with engine.begin() as connection:
        row = connection.execute(
            text("SELECT state, disabled_because FROM webhook_endpoints WHERE id = :id"), {"id": endpoint_id}
        ).one()
        return row.state, row.disabled_because


def states(engine: Engine) -> set[str]:
    with engine.begin() as connection:
        return set(connection.execute(text("SELECT DISTINCT state FROM deliveries")).scalars())


def page(engine: Engine, endpoint_id: UUID) -> list[Delivery]:
    with engine.begin() as connection:
        return deliveries.list_page(connection, endpoint_id, state=None, before=None, limit=1000)[0]


Inspect = Callable[..., list[UUID]]
