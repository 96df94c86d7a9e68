"""Numeric models, one method a folder. They need torch and numpy, and know nothing of nerfstudio."""
