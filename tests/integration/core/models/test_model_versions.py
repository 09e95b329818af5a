"""Model versions: ready before active, activation and rollback as a stack, every change audited."""

import pytest
from sqlalchemy import Connection, Engine, select, text

from core.access.tables import audit_events
from core.errors import Code, Refused
from core.models import model_versions, recipes, thresholds

MANIFEST = {"threshold": {"value": 0.5, "calibration": {"sample_size": 40}}, "review_threshold": 0.4}


@pytest.fixture
def three_ready(engine: Engine) -> Engine:
    """A recipe with versions 1 to 3, all ready; 1 is active."""
    with engine.begin() as connection:
        recipes.create(connection, "ring", actor="test")
        for number in (1, 2, 3):
            version, new = model_versions.register(
                connection, "ring", sha256=bytes([number]) * 32, manifest=MANIFEST, actor="test"
            )
            assert (version.version, version.state, new) == (number, "uploaded", True)
            assert model_versions.mark_ready(connection, version.id)
    return engine


def uploaded_version(connection: Connection) -> int:
    recipes.create(connection, "ring", actor="test")
    version, _ = model_versions.register(connection, "ring", sha256=b"1" * 32, manifest=MANIFEST, actor="test")
    connection.execute(text("UPDATE model_versions SET created_at = now() - interval '1 minute'"))
    return version.id


def end_leases(connection: Connection, interval: str = "-1 second") -> None:
    """Let the leases of all checks end this long from now."""
    connection.execute(
        text("UPDATE model_versions SET check_until = clock_timestamp() + CAST(:interval AS interval)"),
        {"interval": interval},
    )


def active(engine: Engine) -> int | None:
    with engine.begin() as connection:
        return recipes.get(connection, "ring").active_version


def test_the_first_ready_version_becomes_active(three_ready: Engine) -> None:
    assert active(three_ready) == 1


def test_the_manifest_seeds_the_first_threshold(three_ready: Engine) -> None:
    with three_ready.begin() as connection:
        version = model_versions.get(connection, "ring", 1)
        [limit] = thresholds.in_force(connection, version.id)
    assert (limit.threshold, limit.review_threshold, limit.station_id) == (0.5, 0.4, None)
    assert limit.calibration == {"sample_size": 40}


def test_the_same_bundle_twice_is_one_version(three_ready: Engine) -> None:
    with three_ready.begin() as connection:
        version, new = model_versions.register(
            connection, "ring", sha256=bytes([2]) * 32, manifest=MANIFEST, actor="test"
        )
    assert (version.version, new) == (2, False)


def test_rollback_undoes_one_activation_at_a_time(three_ready: Engine) -> None:
    with three_ready.begin() as connection:
        model_versions.activate(connection, "ring", 2, actor="test")
        model_versions.activate(connection, "ring", 2, actor="test")  # nothing changes
        model_versions.activate(connection, "ring", 3, actor="test")
    for expected in (2, 1):
        with three_ready.begin() as connection:
            assert model_versions.rollback(connection, "ring", actor="test").version == expected
        assert active(three_ready) == expected
    with three_ready.begin() as connection, pytest.raises(Refused) as refused:
        model_versions.rollback(connection, "ring", actor="test")
    assert refused.value.code is Code.INVALID_TRANSITION


def test_only_a_ready_version_can_be_activated(three_ready: Engine) -> None:
    with three_ready.begin() as connection:
        version, _ = model_versions.register(connection, "ring", sha256=b"x" * 32, manifest=MANIFEST, actor="test")
        assert model_versions.reject(connection, version.id, "golden score differs")
        assert not model_versions.mark_ready(connection, version.id)  # it was decided
    with three_ready.begin() as connection, pytest.raises(Refused, match="golden score differs") as refused:
        model_versions.activate(connection, "ring", 4, actor="test")
    assert refused.value.code is Code.MODEL_NOT_READY


def test_a_rejected_bundle_that_is_uploaded_again_is_checked_again(three_ready: Engine) -> None:
    with three_ready.begin() as connection:
        version, _ = model_versions.register(connection, "ring", sha256=b"x" * 32, manifest=MANIFEST, actor="test")
        model_versions.reject(connection, version.id, "no memory")
        again, new = model_versions.register(connection, "ring", sha256=b"x" * 32, manifest=MANIFEST, actor="test")
        assert (again.version, again.state, again.rejection, new) == (4, "uploaded", None, False)
        assert model_versions.mark_ready(connection, version.id)


def test_every_change_is_audited_with_its_author(three_ready: Engine) -> None:
    with three_ready.begin() as connection:
        model_versions.activate(connection, "ring", 3, actor="key:abc")
        thresholds.append(
            connection,
            model_versions.get(connection, "ring", 3),
            threshold=1.0,
            review_threshold=None,
            station_id="st-1",
            calibration=None,
            actor="key:abc",
        )
        events = connection.execute(
            select(audit_events.c.action, audit_events.c.detail).where(audit_events.c.actor == "key:abc")
        ).all()
    assert [tuple(event) for event in events] == [
        ("model.activated", {"version": 3, "before": 1}),
        (
            "threshold.set",
            {"version": 3, "threshold": 1.0, "review_threshold": None, "station_id": "st-1", "reason": None},
        ),
    ]


def test_a_version_whose_checks_kill_the_worker_is_rejected(engine: Engine) -> None:
    with engine.begin() as connection:
        recipes.create(connection, "ring", actor="test")
        version, _ = model_versions.register(connection, "ring", sha256=b"1" * 32, manifest=MANIFEST, actor="test")
        for _ in range(20):  # the device was out of memory: that is not its fault
            assert model_versions.begin_check(connection, version.id)
            model_versions.undo_check(connection, version.id)
        begun = []
        for _ in range(model_versions.MAX_CHECKS + 2):
            begun.append(model_versions.begin_check(connection, version.id))
            end_leases(connection)  # the worker was killed
        assert begun == [*[True] * model_versions.MAX_CHECKS, False, False]
        stored = model_versions.by_id(connection, version.id)
        assert (stored.state, stored.rejection) == ("rejected", "5 checks of this version crashed their worker")
        assert model_versions.undecided(connection) == []
        assert not model_versions.begin_check(connection, version.id)


def test_a_rejected_version_that_is_uploaded_again_gets_all_its_checks(engine: Engine) -> None:
    with engine.begin() as connection:
        recipes.create(connection, "ring", actor="test")
        version, _ = model_versions.register(connection, "ring", sha256=b"1" * 32, manifest=MANIFEST, actor="test")
        for _ in range(model_versions.MAX_CHECKS + 1):
            model_versions.begin_check(connection, version.id)
            end_leases(connection)
        again, _ = model_versions.register(connection, "ring", sha256=b"1" * 32, manifest=MANIFEST, actor="test")
        assert (again.id, again.state) == (version.id, "uploaded")
        assert model_versions.begin_check(connection, version.id)


def test_a_version_is_checked_by_one_worker_at_a_time(engine: Engine) -> None:
    with engine.begin() as connection:
        version_id = uploaded_version(connection)
        assert model_versions.undecided(connection) == [version_id]
        assert model_versions.begin_check(connection, version_id)
        for _ in range(2 * model_versions.MAX_CHECKS):  # requests by others during a slow check
            assert not model_versions.begin_check(connection, version_id)
            assert model_versions.undecided(connection) == []
            assert model_versions.renew_check(connection, version_id)
        assert model_versions.mark_ready(connection, version_id)
        assert not model_versions.renew_check(connection, version_id)


@pytest.mark.parametrize("interval", ["-1 second", "1 hour"])
def test_a_lease_that_expired_or_was_taken_by_a_fast_clock_is_taken_over(engine: Engine, interval: str) -> None:
    with engine.begin() as connection:
        version_id = uploaded_version(connection)
        assert model_versions.begin_check(connection, version_id)
        end_leases(connection, interval)
        assert model_versions.undecided(connection) == [version_id]
        assert model_versions.begin_check(connection, version_id)


def test_a_version_that_a_fast_clock_uploaded_is_undecided(engine: Engine) -> None:
    with engine.begin() as connection:
        version_id = uploaded_version(connection)
        connection.execute(text("UPDATE model_versions SET created_at = now() + interval '1 hour'"))
        assert model_versions.undecided(connection, older_than_seconds=5) == [version_id]


def test_a_check_that_fails_is_repeated_until_the_version_is_rejected(engine: Engine) -> None:
    with engine.begin() as connection:
        version_id = uploaded_version(connection)
        for number in range(1, model_versions.MAX_CHECKS + 1):
            assert model_versions.begin_check(connection, version_id)
            assert model_versions.fail_check(connection, version_id, "it crashed") == (number == 5)
        stored = model_versions.by_id(connection, version_id)
    assert (stored.state, stored.rejection) == (
        "rejected",
        "5 checks of this version failed; the last one: it crashed",
    )
