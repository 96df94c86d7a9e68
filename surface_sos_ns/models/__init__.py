"""Numeric models, one folder per method. They need torch and numpy, but not nerfstudio."""
