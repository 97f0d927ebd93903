"""What every room stands on: files that appear whole, caches, devices, processes, optional libraries."""
