"""Changes to nerfstudio and viser at run time, each with a test that fails once they are no longer needed."""
