"""The HTTP interface (FastAPI). It translates between HTTP and `core`, and decides nothing."""
