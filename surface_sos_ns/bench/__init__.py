"""`surface-sos bench`: how fast this package is, against others, on the machine at hand."""
