"""NeRF-SOS as a method of nerfstudio: model, data, and the order of events of a run."""
