"""`python -m linewatch.server` prints the `PYTHONPATH` of the server's own processes, such as `python -m api`."""

from linewatch.server import LIBRARY

print(LIBRARY)
