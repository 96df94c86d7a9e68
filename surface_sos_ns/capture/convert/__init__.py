"""`surface-sos convert`: scenes of public data sets as captures in nerfstudio's layout, one data set a file."""
