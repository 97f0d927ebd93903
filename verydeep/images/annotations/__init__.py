"""Annotations of images: files of boxes and labels."""
