"""Results over MQTT: a consumer of the feed that publishes each result, and acknowledges what the broker has taken.

At most one of all io workers publishes, so results come in feed order. The broker confirms each (QoS 1); whatever was
not confirmed is published again, so a subscriber may see one twice, never none.
"""

import logging
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, text

from core.database import UNUSABLE
from core.delivery.mqtt import BrokerRefused, connected
from core.documents.documents import FeedItem, feed_items
from core.errors import Refused
from core.feed import consumers, feed
from core.feed.feed import Cursor
from core.settings import Settings

if TYPE_CHECKING:
    from paho.mqtt.client import Client

log = logging.getLogger(__name__)

CONSUMER = f"{consumers.INTERNAL}mqtt"
_READER = consumers.Reader("worker", is_admin=True)
PAGE = 100
POLL_SECONDS = 0.5
PAUSE_SECONDS = 5.0
"""Between two tries to reach the broker or the database."""
CONFIRM_SECONDS = 20.0
_LOCK = 0x4C57_0004  # a session's advisory lock: the holder publishes
_NOT_IN_A_LEVEL = re.compile(r"[+#/\x00-\x1f\x7f]")


class NotConfirmed(Exception):  # noqa: N818 - it reads as what happened
    """The broker was lost, or did not confirm in time."""


def topic_of(pattern: str, item: FeedItem) -> str:
    """The topic of a result: each `{field}` of the pattern becomes one level, `-` where the result has none."""
    values = {
        name: _NOT_IN_A_LEVEL.sub("_", getattr(item, name) or "-")
        for name in ("recipe", "line_id", "station_id", "lot_id", "part_id", "view")
    }
    return pattern.format(**values)


def _place(connection: Connection, state: feed.State, cursor: Cursor) -> Cursor:
    """Where to go on; after a restore where the database says, so that nothing is missed."""
    try:
        return feed.check_cursor(connection, state, cursor)
    except Refused as lost:
        log.warning("%s", lost.detail)
        return feed.start(connection, state, lost.members["resume_after"])


class Publisher:
    """Publishes from a thread of its own, from `start` to `stop`."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        """Raises ModuleNotFoundError where `linewatch[mqtt]` is not installed."""
        import paho.mqtt.client  # noqa: F401 - better now, when the worker starts, than in the thread

        assert settings.mqtt_url is not None  # noqa: S101 - the caller has looked
        self._url = settings.mqtt_url.get_secret_value()
        self._pattern = settings.mqtt_topic
        self._engine = engine
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after what is on its way, within seconds."""
        self._stopping.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._alone() as mine:
                    if mine:
                        self._publish_until_stopped()
            except UNUSABLE as error:
                log.warning("the database cannot be used, trying again: %s", error)
            except (OSError, BrokerRefused, NotConfirmed) as error:
                log.warning("the MQTT broker cannot be used, trying again: %s", error)
            except Refused as refused:  # the items have expired by now
                log.warning("%s", refused.detail)
            except Exception:  # if this thread ended, publishing would stop unnoticed
                log.exception("publishing over MQTT failed, trying again")
            self._stopping.wait(PAUSE_SECONDS)

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether this process is the one that publishes, as long as its connection to the database lasts."""
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            mine: bool = connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK}).scalar_one()
            try:
                yield mine
            finally:
                if mine:
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})

    def _publish_until_stopped(self) -> None:
        # Other systems on the broker have other epochs. MQTT 3.1.1 grants a name 23 characters.
        name = f"linewatch-{self._state().epoch:x}"[:23]
        with connected(self._url, name=name, seconds=CONFIRM_SECONDS) as client:
            log.info("publishing results over MQTT")
            while not self._stopping.is_set():
                items, following = self._next()
                self._send(client, items)
                if following is None:
                    self._stopping.wait(POLL_SECONDS)
                else:
                    self._acknowledge(following)

    def _next(self) -> tuple[Sequence[FeedItem], Cursor | None]:
        """The next results, and what to acknowledge once they are confirmed: None where there is nothing new.

        A first start begins with what comes from now on.
        """
        state = self._state()
        with self._engine.begin() as connection:
            known = consumers.find(connection, CONSUMER)
            if known is None:
                consumers.acknowledge(connection, state, CONSUMER, "now", reader=_READER)
                return [], None
            place = _place(connection, state, known.cursor)
            page = feed.read(connection, state, place, limit=PAGE, reviews=True)
            return feed_items(connection, page), page.following if page.entries or place != known.cursor else None

    def _send(self, client: "Client", items: Sequence[FeedItem]) -> None:
        sent = [client.publish(topic_of(self._pattern, one), one.model_dump_json(), qos=1) for one in items]
        give_up = time.monotonic() + CONFIRM_SECONDS
        try:
            for message in sent:
                while not message.is_published():
                    if not client.is_connected() or time.monotonic() > give_up:
                        raise NotConfirmed("it was lost, or does not confirm")
                    message.wait_for_publish(POLL_SECONDS)
        except (RuntimeError, ValueError) as error:  # not connected any more, or no room for more messages
            raise NotConfirmed(str(error)) from error

    def _state(self) -> feed.State:
        with self._engine.begin() as connection:
            return feed.number_entries(connection)

    def _acknowledge(self, cursor: Cursor) -> None:
        state = self._state()
        with self._engine.begin() as connection:
            consumers.acknowledge(connection, state, CONSUMER, str(cursor), reader=_READER)
