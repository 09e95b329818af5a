"""Notifications over Redis' pub/sub: something became final. They wake waiting clients at once; a lost one only costs
a second, because every waiter also polls."""

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
    """A client that gives up quickly: nothing here may wait for Redis."""
    return redis.Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=CONNECT_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
        **connection_options(settings),
    )


async def subscribe(settings: Settings, *channels: str) -> AsyncIterator[tuple[str, list[str]]]:
    """What is hinted from now on: the channel and the names. It never ends; while Redis is away, nothing comes."""
    while True:
        client = redis.asyncio.from_url(
            settings.redis_url.get_secret_value(), retry=AsyncRetry(NoBackoff(), 0), **connection_options(settings)
        )
        with contextlib.suppress(RedisError, OSError):
            async with client, client.pubsub(ignore_subscribe_messages=True) as subscription:
                await subscription.subscribe(*channels)
                async for message in subscription.listen():
                    yield message["channel"].decode(), message["data"].decode().split()
        await asyncio.sleep(LISTEN_AGAIN_SECONDS)


class Notifier:
    """Sends notifications; thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._client = connect(settings)

    def close(self) -> None:
        self._client.close()

    def finished(self, finished: Finished) -> None:
        """Say which inspections, batches and runs became final, after their commit."""
        self._send(FINISHED_CHANNEL, [str(one) for one in (*finished.inspections, *finished.batches, *finished.runs)])

    def map_written(self, key: str) -> None:
        """Say that an anomaly map or a heatmap lies in the store."""
        self._send(MAP_CHANNEL, [key])

    def _send(self, channel: str, names: list[str]) -> None:
        if not names:
            return
        try:
            self._client.publish(channel, " ".join(names))
        except (RedisError, OSError) as error:
            log.warning("could not send a notification; waiting clients will notice a second later: %s", error)
