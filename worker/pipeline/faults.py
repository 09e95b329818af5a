"""The fault of a process that only a new process mends."""


class WorkerUnfit(RuntimeError):  # noqa: N818 - it names the state of the worker
    """This process cannot go on, which is not the fault of an image. End it; its supervisor starts another."""


def describe(error: BaseException) -> str:
    """The type of an exception and the first line of its message: those of CUDA have many lines."""
    message = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
