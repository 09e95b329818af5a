"""Checks of this machine: versions, PyTorch, the GPU and its driver."""

import importlib.metadata
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from core.settings import Settings
from linewatch.server.doctor.findings import Finding, first_line

_LIBRARIES = ("celery", "kombu", "redis", "psycopg", "sqlalchemy", "fastapi", "uvicorn", "pydantic")
_SMI_SECONDS = 15.0
_SMI_FIELDS = "name,driver_version,memory.used,memory.total,temperature.gpu"


def check_versions() -> list[Finding]:
    """Report the versions of Linewatch, its client and Python; the first two must be the same."""
    server, client = _version("linewatch"), _version("linewatch-client")
    found = f"{server or '(not installed)'}, Python {platform.python_version()} on {platform.platform()}"
    if server != client:
        remedy = f"pip install --upgrade 'linewatch=={server}' 'linewatch-client=={server}'"
        return [Finding("Linewatch", "error", f"{found}, but linewatch-client {client}", remedy)]
    libraries = ", ".join(f"{name} {_version(name)}" for name in _LIBRARIES)
    return [Finding("Linewatch", "ok", found), Finding("libraries", "ok", libraries)]


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_torch(settings: Settings) -> list[Finding]:
    """Check PyTorch's build, and whether it can use the GPU that this machine has."""
    gpu = _gpu()
    try:
        import torch
    except ModuleNotFoundError:
        remedy = "training and workers need it: pip install 'linewatch[worker]'"
        return [Finding("torch", "note", "not installed", remedy), *_check_gpu(gpu)]
    except (ImportError, OSError) as error:  # a shared library is missing, or built for another processor
        remedy = "reinstall it: pip install --force-reinstall torch"
        return [Finding("torch", "error", f"cannot be imported: {first_line(error)}", remedy), *_check_gpu(gpu)]
    found = f"version {torch.__version__}, built for {_build(torch)}"
    if torch.cuda.is_available():
        return [_check_kernels(torch, found), *_check_gpu(gpu)]
    return [_without_gpu(torch, found, gpu, settings.device), *_check_gpu(gpu)]


def _build(torch: Any) -> str:
    if torch.version.cuda:
        return f"CUDA {torch.version.cuda}"
    return f"ROCm {torch.version.hip}" if torch.version.hip else "CPUs"


def _check_kernels(torch: Any, found: str) -> Finding:
    name, (major, minor) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    if not torch.version.cuda or any(_runs_on(each, major, minor) for each in torch.cuda.get_arch_list()):
        return Finding("torch", "ok", f"{found}, uses {name}")
    remedy = "install a build of PyTorch for this GPU, see https://pytorch.org/get-started/locally"
    return Finding("torch", "error", f"{found}, without kernels for sm_{major}{minor} of {name}", remedy)


def _without_gpu(torch: Any, found: str, gpu: str | None, device: str) -> Finding:
    required = device == "cuda"
    if gpu is None and not required:
        return Finding("torch", "ok", f"{found}; no GPU, so scoring uses the CPU")
    if gpu is None:
        remedy = "set LINEWATCH_DEVICE=cpu, or see why it is not visible: driver, CUDA_VISIBLE_DEVICES, container"
        return Finding("torch", "error", f"{found}; LINEWATCH_DEVICE is cuda, but no GPU is visible", remedy)
    remedy = "update the driver, or see CUDA_VISIBLE_DEVICES: this build cannot use the GPU"
    if not torch.version.cuda:
        remedy = "install a build of PyTorch for CUDA, see https://pytorch.org/get-started/locally"
    return Finding("torch", "error" if required else "warning", f"{found}; the GPU ({gpu}) is not used", remedy)


def _runs_on(architecture: str, major: int, minor: int) -> bool:
    """Return whether kernels run on a GPU: those of the same major version, or PTX (`compute_…`) of an older one."""
    kind, _, number = architecture.partition("_")
    digits = "".join(filter(str.isdigit, number))
    if not digits:
        return False
    built = (int(digits[:-1]), int(digits[-1]))
    return built <= (major, minor) and (kind == "compute" or built[0] == major)


def _gpu() -> str | None:
    """Return NVIDIA's GPUs with their driver and memory, as `nvidia-smi` shows them; None if there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        driver = Path("/proc/driver/nvidia/version")
        return driver.read_text().splitlines()[0] if sys.platform == "linux" and driver.exists() else None
    try:
        listed = subprocess.run(
            [program, f"--query-gpu={_SMI_FIELDS}", "--format=csv,noheader"],
            capture_output=True, text=True, errors="replace", timeout=_SMI_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi does not answer: {error}"
    return "; ".join(listed.stdout.strip().splitlines()) or None if listed.returncode == 0 else None


def _check_gpu(gpu: str | None) -> list[Finding]:
    if gpu is None:
        return []
    if gpu.startswith("nvidia-smi"):
        return [Finding("GPU", "error", gpu, "see the kernel's log (dmesg) for Xid errors; restart the machine")]
    return [Finding("GPU", "ok", gpu)]
