"""Notifications over Redis' pub/sub that something became final. They wake waiting clients.

A lost notification delays a client by a second, because waiters also poll.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from core.queue.broker import CONNECT_TIMEOUT, FINISHED_CHANNEL, MAP_CHANNEL, connection_options
from core.queue.finishing import Finished
from core.settings import Settings

log = logging.getLogger(__name__)

LISTEN_AGAIN_SECONDS = 1.0


def connect(settings: Settings) -> redis.Redis:
    """A Redis client without retries: nothing may block on notifications."""
    return redis.Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=CONNECT_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
        **connection_options(settings),
    )


async def subscribe(settings: Settings, *channels: str) -> AsyncIterator[tuple[str, list[str]]]:
    """Yields (channel, names) of every notification from now on. Never ends; yields nothing while Redis is down."""
    while True:
        client = redis.asyncio.from_url(
            settings.redis_url.get_secret_value(), retry=AsyncRetry(NoBackoff(), 0), **connection_options(settings)
        )
        with contextlib.suppress(RedisError, OSError):
            async with client, client.pubsub(ignore_subscribe_messages=True) as subscription:
                await subscription.subscribe(*channels)
                async for message in subscription.listen():
                    yield message["channel"].decode(), message["data"].decode(errors="replace").split()
        await asyncio.sleep(LISTEN_AGAIN_SECONDS)


class Notifier:
    """Sends notifications; thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._client = connect(settings)

    def close(self) -> None:
        self._client.close()

    def finished(self, finished: Finished) -> None:
        """Notify that inspections, batches and runs became final. Call it after their commit."""
        self._send(FINISHED_CHANNEL, [str(id_) for id_ in (*finished.inspections, *finished.batches, *finished.runs)])

    def map_written(self, key: str) -> None:
        """Notify that an anomaly map or a heatmap is in the store."""
        self._send(MAP_CHANNEL, [key])

    def _send(self, channel: str, names: list[str]) -> None:
        if not names:
            return
        try:
            self._client.publish(channel, " ".join(names))
        except (RedisError, OSError) as error:
            log.warning("could not send a notification; waiting clients will notice a second later: %s", error)
