"""The ground of every room: files that appear whole, caches, devices, processes, optional libraries."""
