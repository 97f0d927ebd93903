"""The recipe: what is done to a network, and what is kept of it."""
