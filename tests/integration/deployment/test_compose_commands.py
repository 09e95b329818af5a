"""The commands of docker-compose.yml use modules that their image can import."""

import subprocess
import sys

from tests.fixtures.compose import LINEWATCH_SERVICES, ROOT, command, module, needs_torch


def test_commands_use_modules_that_their_image_can_import() -> None:
    without = {module(service) for service in LINEWATCH_SERVICES if not needs_torch(service)}
    celery = {module(service) for service in LINEWATCH_SERVICES if command(service)[0] == "celery"}
    program = f"""
import importlib, sys
from celery import Celery
for name in {sorted(without)}:
    importlib.import_module(name)
assert not {{"torch", "torchvision", "safetensors", "scipy"}} & sys.modules.keys()
for name in {sorted(celery)}:
    assert isinstance(importlib.import_module(name).app, Celery)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)
