"""Images with a box each: geometry, matching, sources."""
