"""`make demo`: the main job on real images, from training to verdicts, on this machine."""
