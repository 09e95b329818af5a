"""The previous release and this one work together: `make test-upgrade`."""
