"""The paper's experiment on any images: its grid, claims and report."""
