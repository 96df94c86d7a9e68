"""`surface-sos process`: photos or a video to a scene with poses, by pycolmap alone."""
