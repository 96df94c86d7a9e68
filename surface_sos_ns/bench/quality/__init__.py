"""`surface-sos bench quality`: how good masks, clean plates and meshes are, on captures with and without truth."""
