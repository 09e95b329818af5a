"""`make demo`: from training to verdicts on real images, on this machine."""
