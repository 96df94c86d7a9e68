"""`surface-sos export`: what a trained run found, as files that other programs read."""
