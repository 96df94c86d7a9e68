"""Parts of an object, found on the surface of a finished run (SCOPS in 3D)."""
