"""The api and the io worker start without PyTorch and scipy."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("modules", ["api.app, api.__main__", "worker.io, worker.thumbnails.drawing"])
def test_importing_it_imports_no_torch(modules: str) -> None:
    script = f"import sys, {modules}; print(sorted(m for m in sys.modules if 'torch' in m or 'scipy' in m))"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
