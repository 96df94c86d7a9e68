"""Surface-SOS for nerfstudio: an object segmented in every view of a capture, without labels, through its surface."""

__version__ = "0.1.0"
