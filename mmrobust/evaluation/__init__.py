"""The expensive half of evaluation: every (sample, case, prompting) that a grid needs, predicted once."""
