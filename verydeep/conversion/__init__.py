"""Conversions of runs to other formats, checked against the run; weights for other libraries."""
