"""`linewatch up`: run the whole system on this machine.

The steps: lock the data directory, check that the port is free, start PostgreSQL and Valkey, migrate the database,
start the services, and print that the system is ready. A server that the settings name replaces the embedded one.
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
from linewatch.server.scoring_workers import plan_scoring_workers
from linewatch.server.supervisor import Service, ServiceError, Supervisor

# Stages of a stop: first api and dispatcher, which bring new work; then the workers, which finish theirs; then servers.
_ENTRY, _WORKERS, _SERVERS = 0, 1, 2
_ENTRY_GRACE, _WORKER_GRACE = 5.0, 8.0  # seconds that a stop may take
_API_GRACE = 25.0  # it finishes the requests in flight, for at most 20 s

_PROBE_SECONDS = 1.0
_IO_THREADS = 4
_METRICS_PORT = 9464
"""The first port of the metrics, unless the settings name another one."""
_AS_ROOT = "running as root, and so do the api and the workers: in production, start it as an ordinary user"
_ROOT_WARNING = "ignore::UserWarning:celery.platforms"


@dataclass(frozen=True)
class _Plan:
    """The checked options of `up`, and the environment of the services.

    Attributes:
        scoring_workers: what is set for each of them, by name.
    """

    settings: Settings
    port: int
    data: Path
    account: Account | None
    scoring_workers: Mapping[str, Mapping[str, str]]
    training: bool
    environment: Mapping[str, str]

    def ready_file(self, name: str) -> Path:
        return self.data / "run" / f"{name}.ready"


def default_data_directory() -> Path:
    """Return the data directory that is used without `--data`.

    Raises:
        UpError: this user has no home folder.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/linewatch")
    if data_home := os.environ.get("XDG_DATA_HOME"):
        return Path(data_home, "linewatch")
    try:
        return Path.home() / ".local/share/linewatch"
    except RuntimeError as error:
        raise UpError("this user has no home folder: name the data directory with --data") from error


def run(
    *, host: str, port: int, data: Path | None, scoring_workers: int | None, device: str, training: bool = True
) -> int:
    """Run the system until a stop is requested. Call it from the main thread.

    Prints one line to standard output, `ready: http://HOST:PORT`. Everything else goes to standard error.

    Args:
        scoring_workers: how many to run; None for as many as fit the machine.
        training: whether to run a training worker.

    Returns:
        The exit code: 0 after a requested stop, 1 after a failure, 2 for wrong use.
    """
    logs = Logs()
    try:
        settings = _checked_settings(host, port, scoring_workers, device)
        logs.is_json = settings.log_format == "json"
        folder, account = _open_data(data)
        with locked(folder):
            plan = _plan(settings, folder, account, scoring_workers, training)
            with Supervisor(logs) as supervisor:
                if os.geteuid() == 0:
                    logs.write("linewatch", _AS_ROOT)
                _run_services(plan, supervisor)
    except ServiceError as error:
        for line in error.lines:
            logs.write(error.name, line)
        return _print_error(str(error), error.exit_code)
    except UpError as error:
        return _print_error(str(error), error.exit_code)
    except OSError as error:  # such as a full disk or missing permission; the message names the file
        return _print_error(str(error), 1)
    except KeyboardInterrupt:  # before anything was started
        return 0
    return 0


def _print_error(line: str, exit_code: int) -> int:
    sys.stderr.write(f"linewatch: {' '.join(line.split())}\n")
    sys.stderr.flush()
    return exit_code


def _checked_settings(host: str, port: int, scoring_workers: int | None, device: str) -> Settings:
    if scoring_workers is not None and scoring_workers < 1:
        raise UpError("--scoring-workers must be 1 or more", exit_code=2)
    try:
        settings = read_settings(host=host, port=port, device=device)
    except SettingsError as error:
        raise UpError(str(error), exit_code=2) from error
    if settings.auth == "off" and not settings.listens_on_loopback:
        raise UpError(
            f"LINEWATCH_AUTH=off is not allowed with --host {host}, which other machines can reach: "
            "unset LINEWATCH_AUTH, or listen on 127.0.0.1",
            exit_code=2,
        )
    return settings


def _open_data(requested: Path | None) -> tuple[Path, Account | None]:
    data = default_data_directory() if requested is None else requested
    if _is_set("LINEWATCH_DATABASE_URL") and _is_set("LINEWATCH_REDIS_URL"):
        data = absolute(data)
        make_data_directory(data)
        return data, None
    return open_data_directory(data)


def _is_set(variable: str) -> bool:
    return bool(os.environ.get(variable))


def _plan(
    settings: Settings, data: Path, account: Account | None, scoring_workers: int | None, training: bool
) -> _Plan:
    port = _free_port(settings.host, settings.port)
    private_folder(data / "run")
    environment = {name: value for name, value in os.environ.items() if name != "LINEWATCH_READY_FILE"}
    if not _is_set("LINEWATCH_STORE_URL"):
        environment["LINEWATCH_STORE_URL"] = private_folder(data / "store").as_uri()
    elif not _is_set("LINEWATCH_SCRATCH"):
        environment["LINEWATCH_SCRATCH"] = str(private_folder(data / "scratch"))
    if not _is_set("LINEWATCH_ARCHIVE_ROOTS"):
        environment["LINEWATCH_ARCHIVE_ROOTS"] = archive_folder(data).as_uri()  # encodes commas, which separate roots
    environment |= {
        "LINEWATCH_HOST": settings.host,
        "LINEWATCH_PORT": str(port),
        "LINEWATCH_DEVICE": settings.device,
        "PYTHONUNBUFFERED": "1",
    }
    planned = plan_scoring_workers(scoring_workers, settings.device, environment)
    by_name = {f"scoring-{number}": variables for number, variables in enumerate(planned, start=1)}
    return _Plan(settings, port, data, account, by_name, training, environment)


def _metrics(plan: _Plan, name: str) -> dict[str, str]:
    """The variable that says where a process serves its metrics: each has its own port, in a fixed order."""
    first = _METRICS_PORT if plan.settings.metrics_port is None else plan.settings.metrics_port
    order = ("dispatcher", "io", "training", *plan.scoring_workers)
    return {"LINEWATCH_METRICS_PORT": str(first + order.index(name) if first else 0)}


def _free_port(host: str, port: int) -> int:
    """Check that the api can listen on the port, and return it; for port 0, return a free port.

    Raises:
        UpError: the port is in use, or the address does not belong to this machine.
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
                f"port {port} on {host} is in use: stop the program that uses it, or choose another --port"
            ) from error
        raise UpError(f"cannot listen on {host} port {port}: {error.strerror}") from error


def _run_services(plan: _Plan, supervisor: Supervisor) -> None:
    """Start everything in order, and keep it running until a stop is requested."""
    servers = _start_servers(plan, supervisor)
    if servers is None:
        return
    if not supervisor.run_job("migrate", _python(plan, servers, "migrations")):
        return
    needed = ("api", *plan.scoring_workers)
    services = [*_api_services(plan, servers), *_workers(plan, servers)]
    for service in services:
        if service.name in needed:
            supervisor.add(service)
    if not supervisor.run_until(lambda: supervisor.is_ready(*needed)):
        return
    # Later, so that they do not compete for the cores while the others start.
    others = [service for service in services if service.name not in needed]
    for service in others:
        supervisor.add(service)
    if not supervisor.run_until(lambda: all(supervisor.pid(service.name) for service in others)):
        return
    sys.stdout.write(f"ready: {_url(plan.settings.host, plan.port)}\n")
    sys.stdout.flush()
    supervisor.run_until(lambda: False)


def _start_servers(plan: _Plan, supervisor: Supervisor) -> dict[str, str] | None:
    """Start the embedded servers, except those that the settings replace.

    Returns:
        The environment of the services; `None` if a stop was requested.
    """
    environment = dict(plan.environment)
    started = []
    embeds_database, embeds_redis = not _is_set("LINEWATCH_DATABASE_URL"), not _is_set("LINEWATCH_REDIS_URL")
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
        # PGPORT and similar variables would redirect the services' connections.
        environment = {name: value for name, value in environment.items() if not name.startswith("PG")}
        environment["LINEWATCH_DATABASE_URL"] = postgres.url
        started.append("postgres")
    return environment if supervisor.run_until(lambda: supervisor.is_ready(*started)) else None


def _initialise(postgres: Postgres, supervisor: Supervisor) -> bool:
    """Create the database if it does not exist. Return `False` if a stop was requested."""
    if postgres.is_initialised:
        return True
    try:
        if not supervisor.run_job("initdb", postgres.initialise_command, is_quiet=True):
            return False
    finally:
        postgres.remove_initdb_password()
    postgres.finish_initialisation()
    return True


def _postgres_service(postgres: Postgres) -> Service:
    return Service(
        "postgres", postgres.command, is_ready=postgres.is_ready, start_blocker=postgres.start_blocker, stage=_SERVERS
    )


def _valkey_service(valkey: Valkey) -> Service:
    def start_empty(status: int) -> str | None:
        """Move data that does not load aside. The queue then starts empty and is rebuilt from the database."""
        moved_to = valkey.move_aside() if status > 0 else None
        if moved_to is None:
            return None
        return f"the data did not load and was moved to {moved_to}; starting empty, no inspection is lost"

    return Service(
        "valkey",
        valkey.command,
        is_ready=valkey.is_ready,
        start_blocker=valkey.start_blocker,
        after_failed_start=start_empty,
        stage=_SERVERS,
    )


def _python(
    plan: _Plan, environment: Mapping[str, str], *arguments: str, grace: float = _ENTRY_GRACE
) -> Callable[[], Command]:
    command = Command(
        (sys.executable, "-m", *arguments), environment, cwd=plan.data, stop_signals=((signal.SIGTERM, grace),)
    )
    return lambda: command


def _api_services(plan: _Plan, environment: Mapping[str, str]) -> list[Service]:
    def is_ready(pid: int) -> bool:
        return _is_ready(plan.settings.host, plan.port)

    grace = plan.settings.drain_seconds + _API_GRACE
    return [
        Service("api", _python(plan, environment, "api", grace=grace), is_ready=is_ready, stage=_ENTRY),
        Service(
            "dispatcher",
            _python(plan, {**environment, **_metrics(plan, "dispatcher")}, "worker.dispatcher"),
            stage=_ENTRY,
        ),
    ]


def _workers(plan: _Plan, environment: Mapping[str, str]) -> list[Service]:
    slots = plan.settings.scoring_slots
    services = [
        _celery(plan, {**environment, **own}, name, app="worker.scoring", queues="sync,live,bulk", threads=slots)
        for name, own in plan.scoring_workers.items()
    ]
    services.append(_celery(plan, environment, "io", app="worker.io", queues="io", threads=_IO_THREADS))
    if plan.training:
        services.append(_celery(plan, environment, "training", app="worker.training", queues="training", threads=1))
    return services


def _celery(plan: _Plan, environment: Mapping[str, str], name: str, *, app: str, queues: str, threads: int) -> Service:
    ready_file = plan.ready_file(name)
    options = f"--queues {queues} --pool threads --concurrency {threads} --hostname {name}@%h --loglevel WARNING"
    quiet = "--without-gossip --without-mingle --without-heartbeat"
    arguments = f"celery --quiet -A {app} worker {options} {quiet}".split()
    worker_environment = {
        **environment,
        **_metrics(plan, name),
        "LINEWATCH_READY_FILE": str(ready_file),
        # As root, Celery prints a long warning about pickled messages, which these workers do not accept.
        "PYTHONWARNINGS": ",".join(filter(None, [environment.get("PYTHONWARNINGS"), _ROOT_WARNING])),
    }
    build_command = _python(plan, worker_environment, *arguments, grace=_WORKER_GRACE)

    def command() -> Command:
        ready_file.unlink(missing_ok=True)  # a killed worker leaves it behind
        return build_command()

    return Service(name, command, is_ready=lambda pid: ready_file.exists(), stage=_WORKERS)


def _is_ready(host: str, port: int) -> bool:
    """Return whether `/readyz` answers with 200."""
    connection = http.client.HTTPConnection(_probe_host(host), port, timeout=_PROBE_SECONDS)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):  # not listening yet
        return False
    finally:
        connection.close()


def _probe_host(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a host name
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
