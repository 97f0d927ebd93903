"""Other libraries' weights: files, names, axes and preprocessing."""
