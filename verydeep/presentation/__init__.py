"""Figures for people: tables on a terminal, pages, progress."""
