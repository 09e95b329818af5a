"""`python -m linewatch.cli`: the same as `linewatch`."""

from linewatch.cli import main

main()
