"""The nerfstudio plugin: data, models, trainer and registration of the methods."""
