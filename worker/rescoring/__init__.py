"""The re-scoring tasks: plan runs, read images, score slices and render reports."""
