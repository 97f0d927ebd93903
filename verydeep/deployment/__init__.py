"""Use of a trained network."""
