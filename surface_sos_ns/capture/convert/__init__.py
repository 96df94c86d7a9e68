"""`surface-sos convert`: scenes of public data sets as captures in nerfstudio's format; a file for each data set."""
