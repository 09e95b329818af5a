"""`make demo`: the main job on real pictures, from training to verdicts, on this machine."""
