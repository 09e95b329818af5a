"""Results over MQTT: a consumer of the feed that publishes each result and acknowledges it once the broker confirms it.

Only one io worker publishes at a time, so results come in feed order. A result that the broker does not confirm (QoS 1)
is published again: a subscriber may receive a result twice, but misses none that is still in the feed.
"""

import logging
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import Counter
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
"""The pause after a failure of the broker or the database."""
CONFIRM_SECONDS = 20.0
_LOCK = 0x4C57_0004  # the advisory lock of the session that publishes
_CONFIRMED = Counter("linewatch_mqtt_results", "Results that the MQTT broker has confirmed.")
_NONCHARACTERS = "\ufdd0-\ufdef" + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_NOT_IN_A_LEVEL = re.compile(rf"[+#/\x00-\x1f\x7f-\x9f{_NONCHARACTERS}]")
"""Wildcards, the separator, and what brokers refuse in a topic (MQTT 5, section 1.5.4)."""


class NotConfirmed(Exception):  # noqa: N818 - named after the event
    """The broker disconnected, or did not confirm in time."""


def topic_of(pattern: str, item: FeedItem) -> str:
    """The topic of a result: each `{field}` of the pattern becomes one level, or `-` if the field is null."""
    values = {
        name: _NOT_IN_A_LEVEL.sub("_", getattr(item, name) or "-")
        for name in ("recipe", "line_id", "station_id", "lot_id", "part_id", "view")
    }
    return pattern.format(**values)


def _resume_at(connection: Connection, state: feed.State, cursor: Cursor) -> Cursor:
    """The cursor to read from: this one, or its replacement after a restore or if entries behind it have expired.

    After a restore, some results may be published again, but none is skipped.
    """
    try:
        return feed.check_cursor(connection, state, cursor)
    except Refused as lost:
        log.warning("%s", lost.detail)
        return feed.start_cursor(connection, state, lost.members["resume_after"])


class Publisher:
    """Publishes results in a separate thread, from `start` to `stop`."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        """The settings must contain an MQTT URL.

        Raises:
            ModuleNotFoundError: `linewatch[mqtt]` is not installed.
        """
        import paho.mqtt.client  # noqa: F401 - fail when the worker starts, not later in the thread

        assert settings.mqtt_url is not None  # noqa: S101 - see above
        self._url = settings.mqtt_url.get_secret_value()
        self._pattern = settings.mqtt_topic
        self._engine = engine
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Finish the page in progress, and wait up to five seconds for that."""
        self._stopping.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._lock() as locked:
                    if locked:
                        self._publish_until_stopped()
            except UNUSABLE as error:
                log.warning("the database cannot be used, trying again: %s", error)
            except (OSError, BrokerRefused, NotConfirmed) as error:
                log.warning("the MQTT broker cannot be used, trying again: %s", error)
            except Refused as refused:  # entries expired before they were read
                log.warning("%s", refused.detail)
            except Exception:  # without this thread, publishing would stop unnoticed
                log.exception("publishing over MQTT failed, trying again")
            self._stopping.wait(PAUSE_SECONDS)

    @contextmanager
    def _lock(self) -> Iterator[bool]:
        """Try to get the lock for a `with` block; yields whether it succeeded. A lost connection releases the lock."""
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            locked: bool = connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK}).scalar_one()
            try:
                yield locked
            finally:
                if locked:
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})

    def _publish_until_stopped(self) -> None:
        # Other Linewatch systems on the same broker have other epochs. MQTT 3.1.1 guarantees 23 characters for a name.
        name = f"linewatch-{self._state().epoch:x}"[:23]
        with connected(self._url, name=name, seconds=CONFIRM_SECONDS) as client:
            log.info("publishing results over MQTT")
            while not self._stopping.is_set():
                items, next_cursor = self._read_page()
                self._publish(client, items)
                if next_cursor is None:
                    self._stopping.wait(POLL_SECONDS)
                else:
                    self._acknowledge(next_cursor)

    def _read_page(self) -> tuple[Sequence[FeedItem], Cursor | None]:
        """The next results, and the cursor to acknowledge once they are confirmed; None if nothing is new.

        The first start creates the consumer at the end of the feed: older results are not published.
        """
        state = self._state()
        with self._engine.begin() as connection:
            consumer = consumers.find(connection, CONSUMER)
            if consumer is None:
                consumers.acknowledge(connection, state, CONSUMER, "now", reader=_READER)
                return [], None
            cursor = _resume_at(connection, state, consumer.cursor)
            page = feed.read(connection, state, cursor, limit=PAGE, reviews=True)
            return feed_items(connection, page), page.next_cursor if page.entries or cursor != consumer.cursor else None

    def _publish(self, client: "Client", items: Sequence[FeedItem]) -> None:
        """Publish results and wait until all are confirmed.

        Raises:
            NotConfirmed: publish them again.
        """
        messages = [client.publish(topic_of(self._pattern, item), item.model_dump_json(), qos=1) for item in items]
        deadline = time.monotonic() + CONFIRM_SECONDS
        try:
            for message in messages:
                while not message.is_published():
                    if not client.is_connected() or time.monotonic() > deadline:
                        raise NotConfirmed("it disconnected, or does not confirm a result")
                    message.wait_for_publish(POLL_SECONDS)
        except (RuntimeError, ValueError) as error:  # disconnected, or the client's queue is full
            raise NotConfirmed(str(error)) from error
        _CONFIRMED.inc(len(items))

    def _state(self) -> feed.State:
        with self._engine.begin() as connection:
            return feed.number_entries(connection)

    def _acknowledge(self, cursor: Cursor) -> None:
        state = self._state()
        with self._engine.begin() as connection:
            consumers.acknowledge(connection, state, CONSUMER, str(cursor), reader=_READER)
