"""Training runs: the worker's side, and the program of its child process, which trains."""
