"""`make bench`: Linewatch next to a bare loop and to what people build by hand, on this machine, in one run."""
