"""The recipe: the training of a network, and the files that it leaves."""
