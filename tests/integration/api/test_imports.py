"""The api starts without PyTorch."""

import subprocess
import sys


def test_importing_the_api_imports_no_torch() -> None:
    script = "import sys, api.app, api.__main__; print(sorted(m for m in sys.modules if 'torch' in m or 'scipy' in m))"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
