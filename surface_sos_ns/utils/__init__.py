"""Helpers for all parts of the package: files, images, errors, metrics, processes. Imports nothing else of it."""
