"""What everything else may use and that uses nothing of this package itself."""
