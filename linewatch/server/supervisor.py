"""Supervise child processes: start them, merge their logs, restart those that end, and stop all of them in order.

The supervisor is one loop in the main thread. The kernel ties a child to the thread that started it, and a program
without other threads can fork safely. Output is read as it arrives, so that no child blocks on a full pipe.

A service is `waiting` to be started, `starting`, `ready`, or `ended`:

    waiting ──start──► starting ──is_ready──► ready
       ▲                  │                     │
       └──after a pause───┴────────died─────────┘      ended: a finished job, or any service after `stop`
"""

import selectors
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from subprocess import Popen
from types import FrameType, TracebackType
from typing import Self

from linewatch.server.embedded import UpError
from linewatch.server.embedded.children import Command, describe_exit, has_ended, signal_group, spawn
from linewatch.server.logs import Logs, Output

TICK = 0.1  # seconds between two checks of the children
CALM_TICK = 0.5  # the same while all are ready; a child that ends is noticed at once, because its output ends
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before an ended service is restarted; doubles each time
READY_PAUSE = 2.0  # seconds; the longest pause of a service that was ready, because its start works
PAUSE_RESET_AGE = 60.0  # seconds of running after which the next pause is the first one again
ASSUMED_READY_AGE = 5.0  # seconds of running after which a service without a readiness check counts as ready
MAX_FAILED_STARTS = 4  # the supervisor gives up on a service that was never ready after so many starts
START_BLOCKER_TIMEOUT = 15.0  # seconds that a start blocker may take to go away
SAME_SIGNAL = 0.3  # seconds within which a repeated signal counts once: a terminal and a wrapper may both send it
HARD_STOP = 3.0  # seconds that a hard stop may take before SIGKILL
LAST_LINES = 15  # lines of output kept for the error message


class ServiceError(UpError):
    """A service does not start, or a job failed.

    Attributes:
        name: the name of the service or job.
        lines: the last lines of its output.
    """

    def __init__(self, message: str, name: str, lines: list[str]) -> None:
        super().__init__(message)
        self.name = name
        self.lines = lines


@dataclass(frozen=True)
class Service:
    """A service to keep running.

    Attributes:
        command: builds the command for each start; may clean up first.
        is_ready: whether the process with this id accepts work. Without it, a service counts as ready after
            `ASSUMED_READY_AGE`.
        start_blocker: returns why the service cannot start yet, or `None`. The supervisor waits up to
            `START_BLOCKER_TIMEOUT`, then fails.
        after_failed_start: called with the exit status of a process that ended before it was ready; returns a log
            message about what it did, or `None`.
        stage: services of lower stages are stopped first.
        runs_once: whether it is a job, which is not restarted.
        is_quiet: whether its output is shown only if it fails.
    """

    name: str
    command: Callable[[], Command]
    is_ready: Callable[[int], bool] | None = None
    start_blocker: Callable[[], str | None] | None = None
    after_failed_start: Callable[[int], str | None] | None = None
    stage: int = 0
    runs_once: bool = False
    is_quiet: bool = False


@dataclass
class _Run:
    """One process of a service."""

    command: Command
    process: Popen[bytes]
    output: Output
    started_at: float
    ready: bool = False
    stop_steps: list[tuple[signal.Signals, float]] = field(default_factory=list)
    next_step_at: float = 0.0

    @property
    def age(self) -> float:
        return time.monotonic() - self.started_at


@dataclass
class _Child:
    """A service, its history, and its current process."""

    service: Service
    run: _Run | None = None
    start_at: float | None = 0.0  # None if it is not waiting to be started
    was_ever_ready: bool = False
    failed_starts: int = 0
    pause: float = field(default_factory=lambda: FIRST_PAUSE)
    blocked_since: float | None = None
    job_status: int | None = None
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))

    @property
    def name(self) -> str:
        return self.service.name


class Supervisor:
    """Run services in a `with` block, in the main thread. Leaving the block stops all of them."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs
        self._children: dict[str, _Child] = {}
        self._selector = selectors.DefaultSelector()
        self._stop_requests = 0
        self._last_signal = 0.0
        self._former_handlers: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        """Handle SIGINT, SIGTERM and SIGHUP: the first one requests a stop, the second one a hard stop."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            former = signal.getsignal(number)
            if number == signal.SIGHUP and former == signal.SIG_IGN:
                continue  # started with nohup: closing the terminal must not stop it
            self._former_handlers[number] = former
            signal.signal(number, self._request_stop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop all services, then restore the former signal handlers."""
        try:
            self.stop()
        finally:
            for number, former in self._former_handlers.items():
                signal.signal(number, former)

    @property
    def stop_requested(self) -> bool:
        """Whether a stop was requested."""
        return self._stop_requests > 0

    def add(self, service: Service) -> None:
        """Keep this service running from now on."""
        self._children[service.name] = _Child(service)

    def is_ready(self, *names: str) -> bool:
        """Return whether all of these services are ready."""
        runs = [self._children[name].run for name in names]
        return all(run is not None and run.ready for run in runs)

    def pid(self, name: str) -> int | None:
        """Return the id of a service's process; `None` while it has none."""
        run = self._children[name].run
        return run.process.pid if run else None

    def run_until(self, condition: Callable[[], bool]) -> bool:
        """Supervise until the condition holds or a stop is requested.

        Returns:
            Whether the condition holds; `False` means that a stop was requested.

        Raises:
            ServiceError: a service does not start.
        """
        while not self.stop_requested:
            if condition():
                return True
            self._step()
        return False

    def run_job(self, name: str, command: Callable[[], Command], *, is_quiet: bool = False) -> bool:
        """Run a command to its end while the services keep running.

        Returns:
            Whether the command has ended; `False` means that a stop was requested first.

        Raises:
            ServiceError: the command failed.
        """
        self.add(Service(name, command, runs_once=True, is_quiet=is_quiet))
        child = self._children[name]
        if not self.run_until(lambda: child.job_status is not None):
            return False
        if child.job_status:
            raise _failure(child, f"{name} failed ({describe_exit(child.job_status)})")
        return True

    def stop(self) -> None:
        """Stop all services, stage by stage, and wait until they have ended."""
        children = list(self._children.values())
        if any(child.run is not None for child in children):
            self._logs.write("linewatch", "stopping")
        for child in children:
            child.start_at = None
            if child.run is not None:
                child.run.stop_steps = list(child.run.command.stop_signals)
        for stage in sorted({child.service.stage for child in children}):
            self._stop_stage([child for child in children if child.service.stage == stage])
        self._selector.close()

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last_signal > SAME_SIGNAL:
            self._stop_requests += 1
        self._last_signal = now

    def _step(self) -> None:
        """Check each child once, and start, reap or mark it as ready."""
        self._read_outputs(CALM_TICK if self._is_calm() else TICK)
        for child in list(self._children.values()):
            if child.run is None:
                if child.start_at is not None and time.monotonic() >= child.start_at:
                    self._start(child)
            elif has_ended(child.run.process):
                self._handle_end(child, child.run)
            elif not child.run.ready:
                _check_ready(child, child.run)

    def _is_calm(self) -> bool:
        """Whether no child waits to be started or to become ready."""
        return all(
            child.start_at is None if child.run is None else child.run.ready for child in self._children.values()
        )

    def _start(self, child: _Child) -> None:
        if self._is_blocked(child):
            return
        command = child.service.command()
        try:
            process = spawn(command)
        except OSError as error:
            problem = f"{child.name} cannot be started ({command.argv[0]}: {error.strerror})"
            if not child.was_ever_ready:
                raise _failure(child, problem) from error
            self._restart_later(child, problem)
            return
        if process.stdout is None:
            raise RuntimeError("a child must be started with a pipe for its output")
        output = Output(process.stdout, lambda line: self._log_output(child, line))
        self._selector.register(process.stdout, selectors.EVENT_READ, output)
        child.run = _Run(command, process, output, started_at=time.monotonic())
        child.start_at = None

    def _is_blocked(self, child: _Child) -> bool:
        reason = child.service.start_blocker() if child.service.start_blocker else None
        if reason is None:
            child.blocked_since = None
            return False
        now = time.monotonic()
        if child.blocked_since is None:
            child.blocked_since = now
            self._logs.write(child.name, f"waiting: {reason}")
        if now - child.blocked_since > START_BLOCKER_TIMEOUT and not child.was_ever_ready:
            raise UpError(reason)
        return True

    def _handle_end(self, child: _Child, run: _Run) -> None:
        """Reap an ended process. Record the status of a job; schedule the restart of a service."""
        age = run.age
        status = self._reap(child, run)
        if child.service.runs_once:
            child.job_status = status
            return
        if age > PAUSE_RESET_AGE:
            child.pause, child.failed_starts = FIRST_PAUSE, 0
        if run.ready:
            child.pause = min(child.pause, READY_PAUSE)
        else:
            self._handle_failed_start(child, status)
        self._restart_later(child, f"ended ({describe_exit(status)}) after {age:.1f} s")

    def _restart_later(self, child: _Child, reason: str) -> None:
        self._logs.write(child.name, f"{reason}; restarting in {child.pause:g} s")
        child.start_at = time.monotonic() + child.pause
        child.pause = min(child.pause * 2, LONGEST_PAUSE)

    def _handle_failed_start(self, child: _Child, status: int) -> None:
        message = child.service.after_failed_start(status) if child.service.after_failed_start else None
        if message is not None:
            self._logs.write(child.name, message)
        if child.was_ever_ready:
            return
        child.failed_starts += 1
        if child.failed_starts >= MAX_FAILED_STARTS:
            outcome = describe_exit(status)
            raise _failure(
                child, f"{child.name} does not start: {MAX_FAILED_STARTS} starts failed, the last with {outcome}"
            )

    def _reap(self, child: _Child, run: _Run) -> int:
        """Reap an ended process, kill the rest of its process group, and read its remaining output."""
        signal_group(run.process, signal.SIGKILL)
        status = run.process.wait()
        child.run = None
        if not run.output.pipe.closed:
            run.output.read()
            self._close(run.output)
        return status

    def _read_outputs(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            output: Output = key.data
            if not output.read():  # the child has closed its output; it may still be running
                self._close(output)

    def _close(self, output: Output) -> None:
        self._selector.unregister(output.pipe)
        output.close()

    def _log_output(self, child: _Child, line: str) -> None:
        child.lines.append(line)
        if not child.service.is_quiet:
            self._logs.write(child.name, line)

    def _stop_stage(self, children: list[_Child]) -> None:
        while True:
            if self._stop_requests > 1:
                self._harden_stop()
            runs = [(child, child.run) for child in children if child.run is not None]
            for child, run in runs:
                if has_ended(run.process):
                    self._reap(child, run)
                elif time.monotonic() >= run.next_step_at:
                    _next_stop_step(run)
            if not runs:
                return
            self._read_outputs(TICK)

    def _harden_stop(self) -> None:
        """Stop all services hard, after the second signal."""
        self._stop_requests = 1  # a further signal starts another hard stop
        self._logs.write("linewatch", "stopping immediately")
        for child in self._children.values():
            if child.run is not None:
                child.run.stop_steps = [(child.run.command.hard_signal, HARD_STOP)]
                child.run.next_step_at = 0.0


def _check_ready(child: _Child, run: _Run) -> None:
    is_ready = child.service.is_ready
    run.ready = run.age > ASSUMED_READY_AGE if is_ready is None else is_ready(run.process.pid)
    child.was_ever_ready |= run.ready


def _next_stop_step(run: _Run) -> None:
    if not run.stop_steps:
        signal_group(run.process, signal.SIGKILL)
        run.next_step_at = float("inf")
        return
    number, seconds = run.stop_steps.pop(0)
    run.process.send_signal(number)
    run.next_step_at = time.monotonic() + seconds


def _failure(child: _Child, message: str) -> ServiceError:
    lines = [line.strip() for line in child.lines if line.strip()]
    return ServiceError(f"{message}: {lines[-1].removeprefix('linewatch: ')}" if lines else message, child.name, lines)
