"""Exports of runs, checked against the run; weights for other libraries."""
