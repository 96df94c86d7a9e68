"""NeRF-SOS: clusters of rendered segmentation codes, and which of them is the object."""
