"""Activations of layers as descriptors of images, and files of them."""
