"""The plugin's side that meets nerfstudio: data, model, trainer and registration."""
