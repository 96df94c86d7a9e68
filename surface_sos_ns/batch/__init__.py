"""`surface-sos batch`: many captures, each from photos to a report, on Ray."""
