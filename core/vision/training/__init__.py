"""Training: data set, grouping, split, augmentation, training loop and checkpoints."""
