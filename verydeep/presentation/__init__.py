"""How figures are shown: numbers, tables on a terminal, pages, progress."""
