"""`surface-sos parts`: finds the parts of a run's object, and keeps them beside the run."""
