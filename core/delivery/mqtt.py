"""Connecting to an MQTT broker, with `paho-mqtt` from `linewatch[mqtt]`."""

from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from paho.mqtt.client import Client

PORTS = {"mqtt": 1883, "mqtts": 8883}


class BrokerRefused(Exception):  # noqa: N818 - it reads as what happened
    """The broker does not take the connection; the message says why."""


@contextmanager
def connected(url: str, *, name: str, seconds: float) -> "Iterator[Client]":
    """A connection accepted by the broker, for the block. It is not reopened when it breaks.

    Args:
        url: `mqtt://user:password@host:1883` or `mqtts://…`.
        name: of the client, of which a broker knows one at a time; empty for one that the broker chooses.
        seconds: for the network to connect, and for the broker to answer.

    Raises:
        ModuleNotFoundError: `linewatch[mqtt]` is not installed.
        OSError: nothing listens there, or TLS fails.
        BrokerRefused: the broker says no, or nothing.
    """
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    parts = urlsplit(url)
    client = Client(CallbackAPIVersion.VERSION2, client_id=name, reconnect_on_failure=False)
    client.connect_timeout = seconds
    if parts.scheme == "mqtts":
        client.tls_set()
    if parts.username is not None:
        client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
    said: Queue[Any] = Queue()
    client.on_connect = lambda *about: said.put(about[3])
    client.connect(parts.hostname or "", parts.port or PORTS[parts.scheme], keepalive=30)
    client.loop_start()
    try:
        _require_taken(said, seconds)
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def _require_taken(said: "Queue[Any]", seconds: float) -> None:
    try:
        reason = said.get(timeout=seconds)
    except Empty:
        raise BrokerRefused(f"it does not answer a connection within {seconds:g} s: is it a broker?") from None
    if reason.is_failure:
        raise BrokerRefused(f"it refuses the connection: {reason}")
