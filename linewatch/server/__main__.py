"""`python -m linewatch.server` prints the `PYTHONPATH` that the server's processes need, such as `python -m api`."""

from linewatch.server import LIBRARY

print(LIBRARY)
