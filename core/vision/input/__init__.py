"""From an image to the input of a detector: preprocessing, input checks and thumbnails."""
