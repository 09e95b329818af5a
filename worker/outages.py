"""What is raised while a server cannot be used."""

from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError

from core.database import UNUSABLE

BROKER_DOWN = (RedisError, BrokerError, OSError)
"""Raised while Redis cannot be used."""
OUTAGE = (*BROKER_DOWN, *UNUSABLE)
