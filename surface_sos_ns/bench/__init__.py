"""`surface-sos bench`: speed of this package against other packages, on the same machine; quality of its results."""
