"""Textures: a mesh laid out flat, and coloured from the photos that see it. Numpy and mesh libraries, no nerfstudio."""
