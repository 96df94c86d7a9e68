"""What photos, masks and sparse points say about the object before training: numpy only, no nerfstudio."""
