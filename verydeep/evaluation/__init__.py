"""Testing: posteriors of images by the paper's protocols, the errors they make, and their comparison."""
