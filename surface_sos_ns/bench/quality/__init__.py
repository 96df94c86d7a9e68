"""`surface-sos bench quality`: how good masks, clean plates and meshes are, with and without ground truth."""
