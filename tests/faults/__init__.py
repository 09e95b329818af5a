"""The crash suite: `make test-faults`."""
