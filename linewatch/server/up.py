"""`linewatch up`: the whole system on this machine, from one command.

The order: lock the data directory, see that the port is free, start PostgreSQL and Valkey, migrate, start the services,
say that it is ready. Servers that the settings point to are used instead of our own.
"""

import errno
import http.client
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from core.settings import Settings, SettingsError, read_settings
from linewatch.server.embedded import UpError
from linewatch.server.embedded.children import Account, Command
from linewatch.server.embedded.data import (
    absolute,
    archive_folder,
    locked,
    make_data_directory,
    open_data_directory,
    private_folder,
    socket_folder,
)
from linewatch.server.embedded.postgres import Postgres
from linewatch.server.embedded.valkey import Valkey
from linewatch.server.logs import Logs
from linewatch.server.supervisor import Service, ServiceError, Supervisor

# What is stopped together: the doors close first, then the workers finish what they hold, and the servers go last.
_DOORS, _WORKERS, _SERVERS = 0, 1, 2
_DOOR_GRACE, _WORKER_GRACE = 5.0, 8.0  # seconds

_PROBE_SECONDS = 1.0
_IO_THREADS = 4
_ROOT_WARNING = "ignore::UserWarning:celery.platforms"
_THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class _Plan:
    """What was asked for, checked; and the environment that the services will see."""

    settings: Settings
    port: int
    data: Path
    account: Account | None
    scoring_workers: int
    environment: Mapping[str, str]

    @property
    def scoring_names(self) -> list[str]:
        return [f"scoring-{number}" for number in range(1, self.scoring_workers + 1)]

    def ready_file(self, name: str) -> Path:
        return self.data / "run" / f"{name}.ready"


def default_data_directory() -> Path:
    """Where the data lies when no one says otherwise.

    Raises:
        UpError: this user has no home.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/linewatch")
    if given := os.environ.get("XDG_DATA_HOME"):
        return Path(given, "linewatch")
    try:
        return Path.home() / ".local/share/linewatch"
    except RuntimeError as error:
        raise UpError("this user has no home folder: say where the data is to lie with --data") from error


def run(*, host: str, port: int, data: Path | None, scoring_workers: int, device: str) -> int:
    """Run the system until it is asked to stop; call it from the main thread.

    Standard output carries one line, `ready: http://HOST:PORT`; everything else goes to standard error.

    Returns:
        The exit code: 0 after a stop that was asked for, 1 where it could not work, 2 for wrong use.
    """
    logs = Logs()
    try:
        settings = _checked_settings(host, port, scoring_workers, device)
        folder, account = _open_data(data)
        with locked(folder):
            plan = _plan(settings, folder, account, scoring_workers)
            with Supervisor(logs) as supervisor:
                _run_services(plan, supervisor)
    except ServiceError as error:
        for line in error.lines:
            logs.write(error.name, line)
        return _refuse(str(error), error.exit_code)
    except UpError as error:
        return _refuse(str(error), error.exit_code)
    except OSError as error:  # a full disk, a missing right: the system's own words name the file
        return _refuse(str(error), 1)
    except KeyboardInterrupt:  # before there was anything to stop
        return 0
    return 0


def _refuse(line: str, exit_code: int) -> int:
    sys.stderr.write(f"linewatch: {' '.join(line.split())}\n")
    sys.stderr.flush()
    return exit_code


def _checked_settings(host: str, port: int, scoring_workers: int, device: str) -> Settings:
    if scoring_workers < 1:
        raise UpError("--scoring-workers must be 1 or more", exit_code=2)
    try:
        settings = read_settings(host=host, port=port, device=device)
    except SettingsError as error:
        raise UpError(str(error), exit_code=2) from error
    if settings.auth == "off" and not settings.listens_on_loopback:
        raise UpError(
            f"LINEWATCH_AUTH=off is refused with --host {host}, which others can reach: "
            "unset it, or listen on 127.0.0.1",
            exit_code=2,
        )
    return settings


def _open_data(given: Path | None) -> tuple[Path, Account | None]:
    data = default_data_directory() if given is None else given
    if _is_given("LINEWATCH_DATABASE_URL") and _is_given("LINEWATCH_REDIS_URL"):
        data = absolute(data)
        make_data_directory(data)
        return data, None
    return open_data_directory(data)


def _is_given(variable: str) -> bool:
    return bool(os.environ.get(variable))


def _plan(settings: Settings, data: Path, account: Account | None, scoring_workers: int) -> _Plan:
    port = _free_port(settings.host, settings.port)
    private_folder(data / "run")
    environment = {name: value for name, value in os.environ.items() if name != "LINEWATCH_READY_FILE"}
    if not _is_given("LINEWATCH_STORE_URL"):
        environment["LINEWATCH_STORE_URL"] = private_folder(data / "store").as_uri()
    if not _is_given("LINEWATCH_ARCHIVE_ROOTS"):
        environment["LINEWATCH_ARCHIVE_ROOTS"] = archive_folder(data).as_uri()  # a comma in its path is encoded
    environment |= {
        "LINEWATCH_HOST": settings.host,
        "LINEWATCH_PORT": str(port),
        "LINEWATCH_DEVICE": settings.device,
        "PYTHONUNBUFFERED": "1",
    }
    return _Plan(settings, port, data, account, scoring_workers, environment)


def _free_port(host: str, port: int) -> int:
    """See that the api will be able to listen there; port 0 becomes one that is free.

    Raises:
        UpError: the port is taken, or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UpError(
                f"port {port} on {host} is in use: stop what listens there, or choose another --port"
            ) from error
        raise UpError(f"cannot listen on {host} port {port}: {error.strerror}") from error


def _run_services(plan: _Plan, supervisor: Supervisor) -> None:
    """Bring everything up in order, and keep it up until a stop is asked for."""
    servers = _start_servers(plan, supervisor)
    if servers is None:
        return
    if not supervisor.run_job("migrate", _python(plan, servers, "migrations")):
        return
    services = [*_api_services(plan, servers), *_workers(plan, servers)]
    for service in services:
        supervisor.add(service)
    if not supervisor.run_until(lambda: supervisor.is_ready("api", *plan.scoring_names)):
        return
    sys.stdout.write(f"ready: {_url(plan.settings.host, plan.port)}\n")
    sys.stdout.flush()
    supervisor.run_until(lambda: False)


def _start_servers(plan: _Plan, supervisor: Supervisor) -> dict[str, str] | None:
    """Start the servers that no setting points elsewhere.

    Returns:
        The environment for the services; `None` if a stop was asked for.
    """
    environment = dict(plan.environment)
    started = []
    embeds_database, embeds_redis = not _is_given("LINEWATCH_DATABASE_URL"), not _is_given("LINEWATCH_REDIS_URL")
    if not embeds_database and not embeds_redis:
        return environment
    sockets = socket_folder(plan.data, plan.account)
    if embeds_redis:
        valkey = Valkey(plan.data, plan.account, sockets)
        supervisor.add(_valkey_service(valkey))
        environment["LINEWATCH_REDIS_URL"] = valkey.url
        started.append("valkey")
    if embeds_database:
        postgres = Postgres(plan.data, plan.account, sockets)
        if not _initialise(postgres, supervisor):
            return None
        supervisor.add(_postgres_service(postgres))
        # PGPORT and the like would lead the services' connections astray.
        environment = {name: value for name, value in environment.items() if not name.startswith("PG")}
        environment["LINEWATCH_DATABASE_URL"] = postgres.url
        started.append("postgres")
    return environment if supervisor.run_until(lambda: supervisor.is_ready(*started)) else None


def _initialise(postgres: Postgres, supervisor: Supervisor) -> bool:
    """Make the database where there is none; `False` if a stop was asked for."""
    if postgres.is_initialised:
        return True
    try:
        if not supervisor.run_job("initdb", postgres.initialise_command, is_quiet=True):
            return False
    finally:
        postgres.forget_initialising()
    postgres.adopt()
    return True


def _postgres_service(postgres: Postgres) -> Service:
    return Service(
        "postgres", postgres.command, is_ready=postgres.is_ready, hindrance=postgres.hindrance, stage=_SERVERS
    )


def _valkey_service(valkey: Valkey) -> Service:
    def start_empty(status: int) -> str | None:
        """A queue whose data does not load starts empty: its contents are found again from the database."""
        aside = valkey.move_aside() if status > 0 else None
        return f"its data did not load: moved to {aside}, starting empty; no inspection is lost" if aside else None

    return Service(
        "valkey",
        valkey.command,
        is_ready=valkey.is_ready,
        hindrance=valkey.hindrance,
        after_failed_start=start_empty,
        stage=_SERVERS,
    )


def _python(
    plan: _Plan, environment: Mapping[str, str], *arguments: str, grace: float = _DOOR_GRACE
) -> Callable[[], Command]:
    command = Command(
        (sys.executable, "-m", *arguments), environment, cwd=plan.data, stop_signals=((signal.SIGTERM, grace),)
    )
    return lambda: command


def _api_services(plan: _Plan, environment: Mapping[str, str]) -> list[Service]:
    def answers(pid: int) -> bool:
        return _is_ready(plan.settings.host, plan.port)

    return [
        Service("api", _python(plan, environment, "api"), is_ready=answers, stage=_DOORS),
        Service("dispatcher", _python(plan, environment, "worker.dispatcher"), stage=_DOORS),
    ]


def _workers(plan: _Plan, environment: Mapping[str, str]) -> list[Service]:
    threads = str(max(1, _cores() // plan.scoring_workers))
    scoring = dict.fromkeys(_THREAD_SETTINGS, threads) | dict(environment)
    services = [
        _celery(plan, scoring, name, app="worker.scoring", queues="sync,live,bulk", threads=plan.settings.scoring_slots)
        for name in plan.scoring_names
    ]
    return [*services, _celery(plan, environment, "io", app="worker.io", queues="io", threads=_IO_THREADS)]


def _celery(plan: _Plan, environment: Mapping[str, str], name: str, *, app: str, queues: str, threads: int) -> Service:
    ready_file = plan.ready_file(name)
    options = f"--queues {queues} --pool threads --concurrency {threads} --hostname {name}@%h --loglevel WARNING"
    quiet = "--without-gossip --without-mingle --without-heartbeat"
    arguments = f"celery --quiet -A {app} worker {options} {quiet}".split()
    own = {
        **environment,
        "LINEWATCH_READY_FILE": str(ready_file),
        # Celery warns root at length of pickled messages, which are not accepted here.
        "PYTHONWARNINGS": ",".join(filter(None, [environment.get("PYTHONWARNINGS"), _ROOT_WARNING])),
    }
    make = _python(plan, own, *arguments, grace=_WORKER_GRACE)

    def command() -> Command:
        ready_file.unlink(missing_ok=True)  # a killed worker leaves it behind
        return make()

    return Service(name, command, is_ready=lambda pid: ready_file.exists(), stage=_WORKERS)


def _cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _is_ready(host: str, port: int) -> bool:
    """Whether `/readyz` says 200."""
    connection = http.client.HTTPConnection(_probe_host(host), port, timeout=_PROBE_SECONDS)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):  # not yet
        return False
    finally:
        connection.close()


def _probe_host(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
