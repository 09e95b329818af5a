"""Bundles: a detector as a folder or tar file, with its manifest and golden scores."""
