"""Training: the loop, its recipe, and what makes a killed run resume to the identical result."""
