"""Connections to an MQTT broker, with `paho-mqtt` from `linewatch[mqtt]`."""

from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from paho.mqtt.client import Client

PORTS = {"mqtt": 1883, "mqtts": 8883}


class BrokerRefused(Exception):  # noqa: N818 - describes the fault
    """The broker rejects the connection; the message says why."""


@contextmanager
def connected(url: str, *, name: str, seconds: float) -> "Iterator[Client]":
    """A connection that the broker has accepted, for a `with` block. It does not reconnect.

    Args:
        url: `mqtt://user:password@host:1883` or `mqtts://…`.
        name: the client id, which the broker accepts once at a time; empty lets the broker choose one.
        seconds: the time limit for the network connection, and again for the broker's answer.

    Raises:
        ModuleNotFoundError: `linewatch[mqtt]` is not installed.
        OSError: nothing listens there, or TLS fails.
        BrokerRefused: the broker rejects the connection, or does not answer.
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
    answers: Queue[Any] = Queue()
    client.on_connect = lambda *arguments: answers.put(arguments[3])
    client.connect(parts.hostname or "", parts.port or PORTS[parts.scheme], keepalive=30)
    client.loop_start()
    try:
        _require_accepted(answers, seconds)
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def _require_accepted(answers: "Queue[Any]", seconds: float) -> None:
    try:
        reason = answers.get(timeout=seconds)
    except Empty:
        raise BrokerRefused(f"it does not answer a connection within {seconds:g} s: is it a broker?") from None
    if reason.is_failure:
        raise BrokerRefused(f"it rejects the connection: {reason}")
