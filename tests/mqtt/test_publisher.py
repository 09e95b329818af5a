"""Results over MQTT, with a real broker, subscriber and database."""

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
from pydantic import SecretStr
from sqlalchemy import Engine, text

from core.feed import consumers, feed
from core.inspection import reviews
from core.queue import finishing
from core.settings import Settings
from tests.fixtures.queued_work import claim, passed, submit
from tests.fixtures.servers import free_port
from worker.delivery.mqtt import CONSUMER, Publisher

MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"


def wait_for(condition: Callable[[], bool], message: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, message
        time.sleep(0.05)


@contextmanager
def broker(port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Mosquitto broker that requires a password and stores messages for absent subscribers."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    passwords = folder / "passwords"
    if not passwords.exists():
        command = [
            str(Path(MOSQUITTO).parents[1] / "bin" / "mosquitto_passwd"),
            "-b",
            "-c",
            str(passwords),
            "lw",
            "p@ss",
        ]
        subprocess.run(command, check=True, capture_output=True)
        passwords.chmod(0o644)
    (folder / "conf").write_text(
        f"listener {port} 127.0.0.1\npassword_file {passwords}\npersistence true\n"
        f"persistence_location {folder}/\nuser root\n"
    )
    process = subprocess.Popen([MOSQUITTO, "-c", str(folder / "conf")], stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


class Subscriber:
    """Collects received messages with their topics, in a persistent session."""

    def __init__(self, port: int) -> None:
        self.got: list[tuple[str, dict[str, Any], int]] = []
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="mes", clean_session=False)
        self._client.username_pw_set("lw", "p@ss")
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _, __, message: self.got.append(
            (message.topic, json.loads(message.payload), message.qos)
        )
        self._client.reconnect_delay_set(1, 1)
        wait_for(lambda: self._connects(port), "no broker")
        self._client.loop_start()
        assert self._subscribed.wait(10)

    def _connects(self, port: int) -> bool:
        try:
            self._client.connect("127.0.0.1", port)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def finish(engine: Engine, recipe_id: int, **fields: object) -> str:
    """Finish one inspection and return its id."""
    with engine.begin() as connection:
        ids = submit(connection, 1, **fields)
        finishing.finish(connection, [passed(claimed) for claimed in claim(connection, recipe_id, ids)])
    return str(ids[0])


def test_results_are_published_in_order_and_survive_a_broker_restart(
    settings: Settings, engine: Engine, recipe_id: int, tmp_path: Path
) -> None:
    port = free_port()
    mqtt_settings = settings.model_copy(
        update={
            "mqtt_url": SecretStr(f"mqtt://lw:p%40ss@127.0.0.1:{port}"),
            "mqtt_topic": "plant/{line_id}/{station_id}/{recipe}",
        }
    )
    finish(engine, recipe_id)  # finished before the first start: not published
    publishers = [Publisher(mqtt_settings, engine) for _ in range(2)]  # as in two io workers
    try:
        with broker(port, tmp_path / "mosquitto"):
            subscriber = Subscriber(port)
            for publisher in publishers:
                publisher.start()
            wait_for(lambda: _known(engine), "the publisher has not begun")
            ids = [finish(engine, recipe_id, line_id="line-2", station_id="st+7/#") for _ in range(5)]
            wait_for(lambda: len(subscriber.got) >= 5, "results have not come")
            assert [message["id"] for _, message, _ in subscriber.got] == ids
            assert {topic for topic, _, _ in subscriber.got} == {"plant/line-2/st_7__/ring"}
            assert {qos for _, _, qos in subscriber.got} == {1}
            assert {message["verdict"] for _, message, _ in subscriber.got} == {"ok"}
        while_away = [finish(engine, recipe_id) for _ in range(3)]
        with engine.begin() as connection:
            reviews.add(connection, UUID(ids[0]), verdict="ng", reviewer="A. Person", reason="a crack", actor="test")
        with broker(port, tmp_path / "mosquitto"):
            wait_for(lambda: len({message["id"] for _, message, _ in subscriber.got}) >= 8, "not after a restart")
            wait_for(lambda: subscriber.got[-1][1]["feed_event"] == "reviewed", "no review")
            received = list(dict.fromkeys((message["id"], message["feed_event"]) for _, message, _ in subscriber.got))
            assert received == [*((inspection_id, "final") for inspection_id in ids + while_away), (ids[0], "reviewed")]
            assert subscriber.got[-1][0] == "plant/line-2/st_7__/ring"
            assert (
                next(topic for topic, message, _ in subscriber.got if message["id"] in while_away) == "plant/-/-/ring"
            )
    finally:
        for publisher in publishers:
            publisher.stop()
        subscriber.close()


def test_a_wrong_password_is_logged_and_no_result_is_lost(
    settings: Settings, engine: Engine, recipe_id: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    mqtt_settings = settings.model_copy(update={"mqtt_url": SecretStr(f"mqtt://lw:wr0ng-secret@127.0.0.1:{port}")})
    publisher = Publisher(mqtt_settings, engine)
    with broker(port, tmp_path / "mosquitto"):
        Subscriber(port).close()
        publisher.start()
        wait_for(lambda: "cannot be used" in caplog.text, "nothing was said")
        publisher.stop()
    assert "uthoriz" in caplog.text or "password" in caplog.text
    assert "wr0ng-secret" not in caplog.text
    assert not _known(engine)


def _known(engine: Engine) -> bool:
    with engine.begin() as connection:
        return consumers.find(connection, CONSUMER) is not None


def test_results_that_expired_during_an_outage_are_logged_and_the_others_published(
    settings: Settings, engine: Engine, recipe_id: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    mqtt_settings = settings.model_copy(update={"mqtt_url": SecretStr(f"mqtt://lw:p%40ss@127.0.0.1:{port}")})
    with engine.begin() as connection:
        state = feed.number_entries(connection)
        consumers.acknowledge(connection, state, CONSUMER, "oldest", reader=consumers.Reader("worker", is_admin=True))
    lost, kept = finish(engine, recipe_id), finish(engine, recipe_id)
    with engine.begin() as connection:
        feed.number_entries(connection)
        connection.execute(text("UPDATE feed SET numbered_at = now() - interval '9 days' WHERE number = 1"))
        assert feed.expire(connection, days=5, at_most=10) == 1
    publisher = Publisher(mqtt_settings, engine)
    with broker(port, tmp_path / "mosquitto"):
        subscriber = Subscriber(port)
        publisher.start()
        wait_for(lambda: bool(subscriber.got), "nothing has come")
        publisher.stop()
        subscriber.close()
    assert [message["id"] for _, message, _ in subscriber.got] == [kept]
    assert lost != kept
    assert "older than the feed keeps" in caplog.text
