"""The child that decodes starts quickly, because it imports no torch."""

import subprocess
import sys

HEAVY = "import sys, worker.pipeline.decoding_child; print(sorted({'torch', 'scipy'} & set(sys.modules)))"


def test_the_child_imports_neither_torch_nor_scipy() -> None:
    output = subprocess.run([sys.executable, "-c", HEAVY], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
