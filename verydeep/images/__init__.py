"""From bytes to batches: sources, decoding, views and the loader."""
