"""Models of the user's own: any function of samples and a case, evaluated like a checkpoint."""
