"""A capture on disk (photos, poses, masks, points) and the object prior made from it. No torch, no nerfstudio."""
