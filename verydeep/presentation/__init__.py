"""Figures for people: how numbers are written, tables on a terminal, pages, progress."""
