"""Documents. `generate` writes those that are made from the code."""
