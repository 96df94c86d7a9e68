"""NeRF-SOS as a method of nerfstudio: model, data and the story of a run."""
