"""What nerfstudio's viewer shows of a run, and the controls in its panel."""
