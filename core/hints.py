"""Hints over Redis' pub/sub: something became final. They wake who waits at once; who misses one looks by itself."""

import logging

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from core.queues import CONNECT_TIMEOUT, FINISHED_CHANNEL, MAP_CHANNEL, connection_options
from core.settings import Settings
from core.work import Finished

log = logging.getLogger(__name__)


def connect(settings: Settings) -> redis.Redis:
    """A client that gives up quickly: nothing here may wait for Redis."""
    return redis.Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=CONNECT_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
        **connection_options(settings),
    )


class Hints:
    """Sends hints; thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._client = connect(settings)

    def close(self) -> None:
        self._client.close()

    def finished(self, finished: Finished) -> None:
        """Say which inspections and batches became final, after their commit."""
        self._send(FINISHED_CHANNEL, [str(one) for one in (*finished.inspections, *finished.batches)])

    def map_written(self, key: str) -> None:
        """Say that an anomaly map or a heatmap lies in the store."""
        self._send(MAP_CHANNEL, [key])

    def _send(self, channel: str, names: list[str]) -> None:
        if not names:
            return
        try:
            self._client.publish(channel, " ".join(names))
        except (RedisError, OSError) as error:
            log.warning("could not send a hint, waiting clients will notice a second later: %s", error)
