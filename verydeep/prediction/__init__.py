"""Images to classes, probabilities and score maps."""
