"""The protocols: posteriors of whole images, and the errors they make."""
