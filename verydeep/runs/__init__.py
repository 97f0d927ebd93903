"""What a training leaves: the run folder, the model folder, and models of the hub."""
