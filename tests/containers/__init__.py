"""Images and services in a Docker daemon: `make test-containers`."""
