"""Thumbnails of stored images, made when somebody looks at them."""
