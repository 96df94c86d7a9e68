"""NeRF-SOS (Fan et al. 2023): a radiance field, and a segmentation head that is learned on it without labels."""
