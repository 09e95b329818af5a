"""Keeps child processes running: starts them, joins their logs, starts again what ended, stops all in order.

It is one loop in one thread, the main one: the kernel ties a child to the thread that started it, and a program
without threads may fork without fear. What a child says is read as it comes, so that no child waits for another.

A service is `waiting` to be started, `starting`, `ready`, or `ended`:

    waiting ──start──► starting ──is_ready──► ready
       ▲                  │                     │
       └──after a pause───┴────────died─────────┘      ended: a job that is done, or everything after `stop`
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

TICK = 0.1  # seconds between two looks at the children
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before an ended service is started again; doubles each time
LONG_LIFE = 60.0  # seconds after which a service has earned a first pause again
SETTLED = 5.0  # seconds after which a service without a readiness check counts as ready
EARLY_DEATHS = 4  # of a service that was never ready: it will not work
HINDRANCE_PATIENCE = 15.0  # seconds that something in the way of a start may take to go away
SAME_SIGNAL = 0.3  # seconds within which a repeated signal is one wish: a terminal and a wrapper both send it
HARD_STOP = 3.0  # seconds that a hard stop may take before SIGKILL
LAST_LINES = 15


class ServiceError(UpError):
    """A service or job that will not work.

    Attributes:
        name: whose.
        lines: the last that it said.
    """

    def __init__(self, message: str, name: str, lines: list[str]) -> None:
        super().__init__(message)
        self.name = name
        self.lines = lines


@dataclass(frozen=True)
class Service:
    """What to keep running.

    Attributes:
        command: built for each start, after any clean-up.
        is_ready: whether the process with this number takes work; without it, living a while is enough.
        hindrance: what is in the way of a start; waited for, then a failure.
        after_failed_start: called with the exit status of a process that ended before it was ready; says what it did.
        stage: services of lower stages are stopped first.
        is_quiet: what it says is shown only when it fails.
    """

    name: str
    command: Callable[[], Command]
    is_ready: Callable[[int], bool] | None = None
    hindrance: Callable[[], str | None] | None = None
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
    """A service, what became of it so far, and the process that it has now."""

    service: Service
    run: _Run | None = None
    start_at: float | None = 0.0  # None: it is not waiting to be started
    was_ever_ready: bool = False
    early_deaths: int = 0
    pause: float = field(default_factory=lambda: FIRST_PAUSE)
    hindered_since: float | None = None
    job_status: int | None = None
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))

    @property
    def name(self) -> str:
        return self.service.name


class Supervisor:
    """Runs services for a `with` block, in the main thread; leaving the block stops all of them."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs
        self._children: dict[str, _Child] = {}
        self._selector = selectors.DefaultSelector()
        self._stops_asked = 0
        self._last_signal = 0.0
        self._former_handlers: dict[signal.Signals, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        """From now on SIGINT, SIGTERM and SIGHUP ask for a stop, a second one for a hard one."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            former = signal.getsignal(number)
            if number == signal.SIGHUP and former == signal.SIG_IGN:
                continue  # nohup: the terminal may go
            self._former_handlers[number] = former
            signal.signal(number, self._ask_to_stop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop everything, then let signals mean what they did before."""
        try:
            self.stop()
        finally:
            for number, former in self._former_handlers.items():
                signal.signal(number, former)

    @property
    def stop_requested(self) -> bool:
        """Whether someone has asked for a stop."""
        return self._stops_asked > 0

    def add(self, service: Service) -> None:
        """Keep this service running from now on."""
        self._children[service.name] = _Child(service)

    def is_ready(self, *names: str) -> bool:
        """Whether all of these services take work now."""
        runs = [self._children[name].run for name in names]
        return all(run is not None and run.ready for run in runs)

    def pid(self, name: str) -> int | None:
        """The number of a service's process; `None` while it has none."""
        run = self._children[name].run
        return run.process.pid if run else None

    def run_until(self, condition: Callable[[], bool]) -> bool:
        """Supervise until the condition holds, or until a stop was asked for.

        Returns:
            Whether the condition holds; `False` means that a stop was asked for.

        Raises:
            ServiceError: a service does not start.
        """
        while not self.stop_requested:
            if condition():
                return True
            self._turn()
        return False

    def run_job(self, name: str, command: Callable[[], Command], *, is_quiet: bool = False) -> bool:
        """Run something to its end while the services go on.

        Returns:
            Whether it came to its end; `False` means that a stop was asked for.

        Raises:
            ServiceError: it failed.
        """
        self.add(Service(name, command, runs_once=True, is_quiet=is_quiet))
        child = self._children[name]
        if not self.run_until(lambda: child.job_status is not None):
            return False
        if child.job_status:
            raise _failure(child, f"{name} failed ({describe_exit(child.job_status)})")
        return True

    def stop(self) -> None:
        """Stop all services, stage by stage, and wait for their end."""
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

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last_signal > SAME_SIGNAL:
            self._stops_asked += 1
        self._last_signal = now

    def _turn(self) -> None:
        """Look once at each child, and do what its state asks for."""
        self._read_outputs()
        for child in list(self._children.values()):
            if child.run is None:
                if child.start_at is not None and time.monotonic() >= child.start_at:
                    self._start(child)
            elif has_ended(child.run.process):
                self._note_end(child, child.run)
            elif not child.run.ready:
                _check_ready(child, child.run)

    def _start(self, child: _Child) -> None:
        if self._is_hindered(child):
            return
        command = child.service.command()
        try:
            process = spawn(command)
        except OSError as error:
            problem = f"{child.name} cannot be started ({command.argv[0]}: {error.strerror})"
            if not child.was_ever_ready:
                raise _failure(child, problem) from error
            self._start_later(child, problem)
            return
        if process.stdout is None:
            raise RuntimeError("a child is started with a pipe for its output")
        output = Output(process.stdout, lambda line: self._tell(child, line))
        self._selector.register(process.stdout, selectors.EVENT_READ, output)
        child.run = _Run(command, process, output, started_at=time.monotonic())
        child.start_at = None

    def _is_hindered(self, child: _Child) -> bool:
        reason = child.service.hindrance() if child.service.hindrance else None
        if reason is None:
            child.hindered_since = None
            return False
        now = time.monotonic()
        if child.hindered_since is None:
            child.hindered_since = now
            self._logs.write(child.name, f"waiting: {reason}")
        if now - child.hindered_since > HINDRANCE_PATIENCE and not child.was_ever_ready:
            raise UpError(reason)
        return True

    def _note_end(self, child: _Child, run: _Run) -> None:
        """A process has ended: was that its job, and if not, when is it started again?"""
        lived = run.age
        status = self._reap(child, run)
        if child.service.runs_once:
            child.job_status = status
            return
        if lived > LONG_LIFE:
            child.pause, child.early_deaths = FIRST_PAUSE, 0
        if not run.ready:
            self._note_failed_start(child, status)
        self._start_later(child, f"ended ({describe_exit(status)}) after {lived:.1f} s")

    def _start_later(self, child: _Child, why: str) -> None:
        self._logs.write(child.name, f"{why}; starts again in {child.pause:g} s")
        child.start_at = time.monotonic() + child.pause
        child.pause = min(child.pause * 2, LONGEST_PAUSE)

    def _note_failed_start(self, child: _Child, status: int) -> None:
        remedy = child.service.after_failed_start(status) if child.service.after_failed_start else None
        if remedy is not None:
            self._logs.write(child.name, remedy)
        if child.was_ever_ready:
            return
        child.early_deaths += 1
        if child.early_deaths >= EARLY_DEATHS:
            how = describe_exit(status)
            raise _failure(child, f"{child.name} does not start: it ended {EARLY_DEATHS} times, last with {how}")

    def _reap(self, child: _Child, run: _Run) -> int:
        """Collect a process that has ended, what is left of its group, and the rest of what it said."""
        signal_group(run.process, signal.SIGKILL)
        status = run.process.wait()
        child.run = None
        if not run.output.pipe.closed:
            run.output.read()
            self._close(run.output)
        return status

    def _read_outputs(self) -> None:
        for key, _ in self._selector.select(TICK):
            output: Output = key.data
            if not output.read():  # closed by the child, which may live on without it
                self._close(output)

    def _close(self, output: Output) -> None:
        self._selector.unregister(output.pipe)
        output.close()

    def _tell(self, child: _Child, line: str) -> None:
        child.lines.append(line)
        if not child.service.is_quiet:
            self._logs.write(child.name, line)

    def _stop_stage(self, children: list[_Child]) -> None:
        while True:
            if self._stops_asked > 1:
                self._harden_stop()
            runs = [(child, child.run) for child in children if child.run is not None]
            for child, run in runs:
                if has_ended(run.process):
                    self._reap(child, run)
                elif time.monotonic() >= run.next_step_at:
                    _next_stop_step(run)
            if not runs:
                return
            self._read_outputs()

    def _harden_stop(self) -> None:
        """The second signal: no one is waited for any more."""
        self._stops_asked = 1  # once
        self._logs.write("linewatch", "stopping at once")
        for child in self._children.values():
            if child.run is not None:
                child.run.stop_steps = [(child.run.command.hard_signal, HARD_STOP)]
                child.run.next_step_at = 0.0


def _check_ready(child: _Child, run: _Run) -> None:
    ask = child.service.is_ready
    run.ready = run.age > SETTLED if ask is None else ask(run.process.pid)
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
    return ServiceError(f"{message}: {lines[-1]}" if lines else message, child.name, lines)
