"""Run folders, model folders, and models of the hub."""
